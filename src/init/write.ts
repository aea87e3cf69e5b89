/** Writes the files of a cache into a checkout, and nothing over what a person has written. */
import { join } from "node:path";
import { type ExistingFile, readExisting, replaceFile } from "../system/replace-file.ts";
import { initialFiles, type Repository, withSection } from "./files.ts";

export interface Written {
  readonly path: string;
  /** `kept`: something else is there. */
  readonly outcome: "written" | "same" | "kept";
}

/** @param force writes over what differs. @throws `filesystem` */
export function writeFiles(folder: string, repository: Repository, force: boolean): Written[] {
  const write = (path: string, decide: (before: string | undefined) => string | undefined): Written => {
    const file = join(folder, path);
    const before: ExistingFile | undefined = readExisting(file);
    const text = before?.bytes.toString("utf8");
    const after = decide(text);
    if (after === undefined) return { path, outcome: "kept" };
    if (after === text) return { path, outcome: "same" };
    replaceFile(file, before, Buffer.from(after));
    return { path, outcome: "written" };
  };
  return [
    ...initialFiles(repository).map(({ path, text }) =>
      write(path, (before) => (before === undefined || before === text || force ? text : undefined)),
    ),
    write("README.md", (before) => withSection(before, repository, force)),
  ];
}
