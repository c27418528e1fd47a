//! From a camera to tracks with stationarity, in a worker process.
//!
//! ```text
//! source (packets) → decode (pictures) → detect (boxes) → track (things over time) → protocol (JSON lines to the gateway)
//!                                             ↘ privacy → still (JPEG, people blurred)
//! ```
//!
//! This crate owns everything that touches a picture, and it fences off two large native libraries (libavformat and
//! ONNX Runtime). It refuses to know what an alarm is: it says "this vehicle has stood here since then, in these
//! zones", and rules elsewhere decide what that means. It knows no MQTT, no async runtime and no other crate of ours.
//! Time is an argument everywhere but in [`clock::SystemClock`].
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod arrival;
pub mod clock;
pub mod decode;
pub mod detect;
mod font;
pub mod geometry;
pub mod health;
pub mod manifest;
pub mod picture;
pub mod pipeline;
pub mod privacy;
pub mod protocol;
pub mod runtime;
pub mod sandbox;
pub mod source;
pub mod still;
pub mod track;
pub mod worker;
pub mod zone;
