// Saves and restores with the real @actions/cache: node client.mjs MODULE < JSON of calls; prints their results.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const cache = await import(pathToFileURL(process.argv[2]).href);
const results = [];
for (const call of JSON.parse(readFileSync(0, "utf8"))) {
  process.chdir(call.folder);
  Object.assign(process.env, call.env);
  try {
    results.push(
      call.save
        ? await cache.saveCache(call.paths, call.key)
        : ((await cache.restoreCache(call.paths, call.key, call.restoreKeys)) ?? null),
    );
  } catch (error) {
    results.push({ error: `${error.name}: ${error.message}` });
  }
}
console.log("\nRESULTS " + JSON.stringify(results));
