// Formulas (KaTeX) and diagrams (Graphviz) for tools/markdown.py: one JSON object a line, in and out.
//   {"kind": "tex", "source": "x^2", "display": false}  ->  {"html": "<span …"}  or  {"error": "…"}
//   {"kind": "dot", "source": "digraph { a -> b }"}     ->  {"html": "<svg …"}   or  {"error": "…"}
import { createInterface } from "node:readline";
import { instance } from "@viz-js/viz";
import katex from "katex";

const SIZE = 14; // of a diagram's letters, in its own units, which the page shows as pixels
const STYLE = {
  graphAttributes: { bgcolor: "transparent", pad: "0.04", nodesep: "0.3", ranksep: "0.4" },
  nodeAttributes: { fontname: "Arial", fontsize: SIZE, shape: "box", style: "rounded", height: "0.42", margin: "0.16,0.06" },
  edgeAttributes: { fontname: "Arial", fontsize: SIZE - 1, arrowsize: "0.7" },
};
// Graphviz has no widths for letters beyond ASCII: it takes each of their bytes for a space, 0.28 em, so that a
// full-width letter gets 0.83 em of the 1 em it needs, and says that it does. An apostrophe (0.19 em) and a mark
// behind each of them make room, and are taken out of the picture again.
const GUESSED = /no value for width of/;
const FULL_WIDTH = /[\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|[\u{20000}-\u{3fffd}]/gu;
const QUOTED_OR_NAME = /"(?:\\.|[^"\\])*"|<[^<>]*>|[\w\u0080-\u{10ffff}]+/gu;
const ROOM = /&#39;\u0001/g;

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
  const roomy = source.replace(QUOTED_OR_NAME, (word) => {
    const wider = word.replace(FULL_WIDTH, "$&'\u0001");
    return wider === word || /^["<]/.test(word) ? wider : `"${wider}"`;
  });
  const { status, output, errors } = graphviz.render(roomy, { format: "svg", ...STYLE });
  const faults = errors.filter(({ message }) => !GUESSED.test(message));
  if (status !== "success" || faults.length) {
    throw new Error(faults.map(({ message }) => message).join("; ") || "Graphviz drew nothing");
  }
  return output.replace(ROOM, "");
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
