import { createKeyPair } from "../nar/key-file.ts";
import { formatPublicKey, parseSecretKey, publicKeyOf } from "../nar/signing-key.ts";
import { command, usageError } from "./command.ts";

export const keygen = command(
  { name: "keygen", description: "Make a signing key pair in Nix's own format" },
  {
    name: { type: "positional", required: false, description: "Name of the key, such as example.org-1" },
    secret: {
      type: "positional",
      required: false,
      valueHint: "FILE",
      description: "File for the secret key (secret.key)",
    },
    pub: {
      type: "positional",
      required: false,
      valueHint: "FILE",
      description: "File for the public key (public.key)",
    },
    public: {
      type: "boolean",
      description: "Read a secret key from standard input and print its public key",
    },
  },
  async (given, context) => {
    const [name, secretFile = "secret.key", publicFile = "public.key"] = given.positionals;
    if (given.flag("public")) {
      if (name !== undefined)
        throw usageError("keygen --public takes no arguments, only a key on standard input");
      const key = parseSecretKey(await context.readStdin(), "standard input");
      context.print(formatPublicKey(publicKeyOf(key)));
      return;
    }
    if (name === undefined) throw usageError("keygen needs the NAME of the key, such as example.org-1");
    if (secretFile === publicFile) throw usageError("keygen needs two different files for the two keys");
    const publicKey = createKeyPair(name, secretFile, publicFile);
    context.log.success(`wrote ${secretFile}, which must stay secret, and ${publicFile}`);
    context.log.info(`clients trust it with: trusted-public-keys = ${publicKey}`);
  },
);
