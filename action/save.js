// The second half alone: after `action/restore`, or without it, where the whole store is the job's.
"use strict";

const action = require("./firn.js");

async function main() {
  const program = await action.binary();
  const noted = process.env.FIRN_CI_STATE;
  const words = [...action.keyWords(), ...action.repeated("--path", action.lines("path"))];
  // What restore has noted holds, unless something else is asked for.
  if (!noted || action.input("storage")) words.push("--storage", action.storage());
  if (!noted) words.push("--cache", action.input("cache") || "main", "--all");
  const state = noted || action.newState();
  const status = action.save(program, state, words);
  if (status !== 0) throw new Error(`firn ci save ended with ${status}`);
  if (noted && action.firn(program, ["ci", "summary", "--state", state]) !== 0) action.warn("there is no summary");
}

main().catch((error) => action.fail(error.message));
