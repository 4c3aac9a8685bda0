// After the job's steps, however they ended: what was built is right, whatever failed later. Nothing here
// fails the job unless it asked for that.
"use strict";

const action = require("./firn.js");

async function main() {
  const program = action.kept("program");
  const state = action.kept("state");
  if (!program || !state) return;
  // The job's steps could write this file, and the rights that it is given now are more than theirs.
  await action.check(program, action.kept("sha256")).catch((error) => {
    throw new Error(`${error.message}: it was changed while the job ran, and is not run again`);
  });
  const status = action.save(program, state, []);
  if (status !== 0) {
    const text = `firn ci save ended with ${status}`;
    if (action.flag("fail-on-error")) action.fail(text);
    else action.warn(text);
  }
  if (action.firn(program, ["ci", "summary", "--state", state]) !== 0) action.warn("there is no summary");
}

main().catch((error) => action.fail(error.message));
