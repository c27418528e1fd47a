//! Orders of other parts of the gateway for one node.
//!
//! Owns the judgement whether the node can do it. Refuses to keep what it cannot: who asked asks again.

use std::sync::Arc;

use gengfu_wire::{Capabilities, Downlink, EncodeError, FRAME_BYTES_MAX, Frame, Sounder, encode};
use jiff::SignedDuration;

use super::Session;
use crate::config::DeviceClass;
use crate::link::update::NodeUpdate;
use crate::link::{Order, Refusal};

impl Session {
    /// Takes an order of another part of the gateway.
    ///
    /// # Errors
    /// [`Refusal`]; then nothing of it is kept.
    pub fn order(&mut self, order: &Order) -> Result<(), Refusal> {
        let Some(boot) = self.boot.as_ref().filter(|_| self.link_told == Some(true)) else {
            return Err(Refusal::LinkDown(self.stats.state.clone()));
        };
        match *order {
            Order::Update(ref bundle) => {
                if !boot.capabilities.has(Capabilities::UPDATE) {
                    return Err(Refusal::NotUpdatable);
                }
                self.update = Some(NodeUpdate::new(Arc::clone(bundle)));
            }
            Order::Identify => self.say.identify(),
            Order::Configure(configure) => {
                check(Downlink::Configure(configure))?;
                self.say.configure(configure);
            }
            Order::Sounder { sound_for } => {
                if !boot.capabilities.has(Capabilities::SOUNDER) {
                    return Err(Refusal::NoSounder);
                }
                let for_ms = u32::try_from(sound_for.as_millis()).unwrap_or(u32::MAX);
                check(Downlink::Sounder(Sounder { for_ms }))?;
                self.say.sound(SignedDuration::from_millis(i64::from(for_ms)));
            }
            Order::Test { channel } => {
                if !matches!(self.config.channels.get(&channel), Some((_, DeviceClass::Smoke))) {
                    return Err(Refusal::NoHead(channel));
                }
                if !self.say.test(channel) {
                    return Err(Refusal::Busy);
                }
            }
        }
        Ok(())
    }
}

/// Whether a node would take such a downlink.
fn check(downlink: Downlink) -> Result<(), Refusal> {
    match encode(&Frame::down(0, downlink), &mut [0; FRAME_BYTES_MAX]) {
        Ok(_) => Ok(()),
        Err(EncodeError::Value { what }) => Err(Refusal::Value(what)),
        Err(_) => Err(Refusal::Value("size")),
    }
}
