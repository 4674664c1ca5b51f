// Formulas (KaTeX) and diagrams (Graphviz) for tools/markdown.py: one JSON object a line, in and out.
//   {"kind": "tex", "source": "x^2", "display": false}  ->  {"html": "<span …"}  or  {"error": "…"}
//   {"kind": "dot", "source": "digraph { a -> b }"}     ->  {"html": "<svg …"}   or  {"error": "…"}
import { createInterface } from "node:readline";
import { instance } from "@viz-js/viz";
import katex from "katex";

const SIZE = 14; // of a diagram's letters, in its own units, which the page shows as pixels
// The widest of the fonts that a page is shown in: whatever fits it fits the others.
const FONT = "DejaVu Sans";
const STYLE = {
  graphAttributes: { bgcolor: "transparent", pad: "0.04", nodesep: "0.3", ranksep: "0.4" },
  nodeAttributes: { fontname: FONT, fontsize: SIZE, shape: "box", style: "rounded", height: "0.42", margin: "0.16,0.06" },
  edgeAttributes: { fontname: FONT, fontsize: SIZE - 1, arrowsize: "0.7" },
};
// Graphviz has no widths for letters beyond ASCII and says so: it takes each of their bytes for a space, 0.32 em,
// so that a full-width letter gets 0.95 em of the 1 em it needs. The margin makes up for it.
const GUESSED = /no value for width of/;

let graphviz;

function tex({ source, display }) {
  return katex.renderToString(source, {
    displayMode: display,
    output: "htmlAndMathml",
    throwOnError: true,
    trust: false,
    strict: (code) => (code === "unicodeTextInMathMode" ? "ignore" : "error"),
  });
}

async function dot({ source }) {
  graphviz ??= await instance();
  const { status, output, errors } = graphviz.render(source, { format: "svg", ...STYLE });
  const faults = errors.filter(({ message }) => !GUESSED.test(message));
  if (status !== "success" || faults.length) {
    throw new Error(faults.map(({ message }) => message).join("; ") || "Graphviz drew nothing");
  }
  return output;
}

for await (const line of createInterface({ input: process.stdin })) {
  const job = JSON.parse(line);
  let answer;
  try {
    answer = { html: job.kind === "tex" ? tex(job) : await dot(job) };
  } catch (error) {
    answer = { error: error.message.replace(/^KaTeX parse error: /, "") };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
