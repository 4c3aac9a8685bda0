//! Tests of the formats against the tools that others use.

mod tar;
