/** Files of this repository that the executable carries as texts. */
declare module "*.nix" {
  const text: string;
  export default text;
}
declare module "*.yml" {
  const text: string;
  export default text;
}
