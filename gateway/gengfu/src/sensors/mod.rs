//! Sensors that other people make.
pub mod profile;
pub mod words;
