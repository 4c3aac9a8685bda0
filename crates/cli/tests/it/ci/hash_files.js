// Reads sets of patterns (JSON, a list of lists) and prints what GitHub's hashFiles says of each, or the
// empty string where nothing matches or a pattern is refused.
"use strict";

const fs = require("node:fs");
const glob = require(process.argv[2]);

async function main() {
  const sets = JSON.parse(fs.readFileSync(process.argv[3], "utf8"));
  const hashes = [];
  for (const patterns of sets) {
    const options = { followSymbolicLinks: false };
    hashes.push(await glob.hashFiles(patterns.join("\n"), process.cwd(), options).catch(() => ""));
  }
  console.log(JSON.stringify(hashes));
}

main();
