"""Writes the program's channels into the current folder: generate.py COUNT

A channel's weights and filter stages are written out, as generators of parsers and codecs
write theirs. They are most of the program; compiling them takes what a real one takes.
"""
import array, pathlib, random, sys

ROWS, COLUMNS, STAGES, STEPS = 512, 128, 12, 64
count = int(sys.argv[1])


def channel_source(channel):
    # Seeded, so that equal sources give equal programs.
    random_source = random.Random(channel)

    def weights(n):
        return [f"{value}u" for value in array.array("I", random_source.randbytes(4 * n))]

    lines = ['#include "channel.h"', f"static const uint32_t weights[{ROWS}][{COLUMNS}] = {{"]
    lines += ["{" + ",".join(weights(COLUMNS)) + "}," for _ in range(ROWS)]
    lines += ["};"]
    for stage in range(STAGES):
        lines += [f"static uint32_t stage_{stage}(uint32_t state, const uint32_t *row)", "{"]
        lines += [f"    state = mix(state, row[{i % COLUMNS}], {key});" for i, key in enumerate(weights(STEPS))]
        lines += ["    return state;", "}"]
    lines += [f"uint32_t channel_{channel}(uint32_t time)", "{", "    uint32_t state = time;"]
    lines += [f"    state = stage_{stage}(state, weights[(time + {stage}) % {ROWS}]);" for stage in range(STAGES)]
    return "\n".join(lines + ["    return state;", "}", ""])


for channel in range(count):
    pathlib.Path(f"channel_{channel}.c").write_text(channel_source(channel))

names = [f"channel_{channel}" for channel in range(count)]
pathlib.Path("channels.c").write_text("\n".join(
    ['#include "channel.h"'] + [f"uint32_t {name}(uint32_t time);" for name in names]
    + [f"const unsigned channel_count = {count};", "uint32_t (*const channels[])(uint32_t time) = {"]
    + [f"    {name}," for name in names] + ["};", ""]))
