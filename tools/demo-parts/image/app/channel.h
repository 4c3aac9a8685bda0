/* What all files of the program agree on. Each includes this one, so a change in here is the
   worst case of a code change: every file is compiled anew, and its code comes out different. */
#ifndef CHANNEL_H
#define CHANNEL_H
#include <stdint.h>

#define RELEASE 1

/* A channel makes a stream of samples; each is a function of the time. */
extern const unsigned channel_count;
extern uint32_t (*const channels[])(uint32_t time);

static inline uint32_t mix(uint32_t state, uint32_t weight, uint32_t key)
{
    state = (state ^ weight) * key + RELEASE;
    if (state & 1)
        state ^= state >> (weight & 15);
    return state << 5 | state >> 27;
}
#endif
