//! placeholder until the formats crate has rewrap
