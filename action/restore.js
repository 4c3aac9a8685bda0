// The first half alone. Its state lies where `action/save` and a plain `firn ci save` look for it.
"use strict";

const action = require("./firn.js");

action.restore(action.newState()).catch((error) => action.fail(error.message));
