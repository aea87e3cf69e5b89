/** What we use of it: https://github.com/cscott/seek-bzip */
declare module "seek-bzip" {
  class Stream {
    readByte(): number;
    writeByte(byte: number): void;
    eof?(): boolean;
  }
  const Bunzip: {
    Stream: typeof Stream;
    /** @param multistream go on behind the end of the first stream */
    decode(input: Stream, output: Stream, multistream: boolean): void;
  };
  export default Bunzip;
}
