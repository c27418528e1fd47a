//! Polling a Modbus line.
//!
//! Owns the way from "what is due" to observations: [`poller`] decides and understands (sans-I/O), [`decode`] takes a value out of an answer,
//! [`port`] opens the line, [`line`] runs it. Refuses to write to a device, ever.

pub mod decode;
pub mod line;
pub mod poller;
pub mod port;

pub use line::run;
