//! The gateway: daemon and command line.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod clock;
