// Before the job's steps: serve the store, bring folders back.
"use strict";

const action = require("./firn.js");

async function main() {
  const state = action.newState();
  const program = await action.restore(state);
  if (!action.flag("lookup-only")) {
    action.keep("program", program);
    action.keep("sha256", await action.sha256(program));
    action.keep("state", state);
  }
}

main().catch((error) => action.fail(error.message));
