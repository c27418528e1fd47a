//! Topics of named devices. Owns the placeholders of a profile's pattern and the match of a topic with a filter; refuses `#`, which a profile
//! cannot write.

/// A pattern of a profile for one device: a topic filter.
#[must_use]
pub fn filter(pattern: &str, address: &str, part: &str) -> String {
    pattern.replace("{device}", address).replace("{part}", part)
}

/// Whether a filter with single-level wildcards takes a topic (MQTT 3.1.1, 4.7.1.3).
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (None, None) => return true,
            (Some(wanted), Some(level)) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_its_own_device_only() {
        let uplink = filter("application/+/device/{device}/event/up", "0011", "");
        assert!(matches(&uplink, "application/7/device/0011/event/up"));
        for other in ["application/7/device/0012/event/up", "application/7/8/device/0011/event/up", "application/7", ""]
        {
            assert!(!matches(&uplink, other), "{other}");
        }
        let state = filter("zigbee2mqtt/{device}", "kitchen/door", "");
        assert!(
            matches(&state, "zigbee2mqtt/kitchen/door") && !matches(&state, "zigbee2mqtt/kitchen/door/availability")
        );
    }
}
