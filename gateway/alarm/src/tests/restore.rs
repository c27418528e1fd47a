//! What a restart finds: damaged entries, and a configuration that has changed meanwhile.

use super::*;

/// A fire, a parked car with an alarm, an open door, a dead link.
fn busy() -> Player {
    check_scene(
        "0    smoke alarm       => raised smoke@smoke ACTIVE_UNACK
         0    node down         => raised sensor_lost@node ACTIVE_UNACK
         0    cam see car1:a:0
         30   door open
         60   cam see car1:a:0  => still of track 1
         61   cam still taken   => raised illegal_parking@cam ACTIVE_UNACK",
    )
}

#[test]
fn everything_goes_on_after_a_restart() {
    let mut player = busy();
    player.play(
        "62 restart
         63 smoke alarm
         64 node up     => cleared sensor_lost@node CLEARED_UNACK
         65 smoke clear => cleared smoke@smoke CLEARED_UNACK
         90             => raised door_left_open@door ACTIVE_UNACK",
    );
    assert_eq!(player.notes, []);
}

#[test]
fn an_unchanged_engine_has_nothing_to_write() {
    let mut player = busy();
    player.play("62 tick\n63 node heartbeat\n64 cam see car1:a:0");
    assert_eq!(player.engine.take_changes(), []);
    assert_eq!(player.engine.tick(at(65.0)), []);
    assert_eq!(player.engine.take_changes(), []);
}

#[test]
fn an_alarm_that_is_over_leaves_nothing_behind() {
    let mut player = check(
        "0 node fault on => raised device_fault@node ACTIVE_UNACK\n1 node fault off => cleared device_fault@node CLEARED_UNACK\n2 ack device_fault@node => done, over device_fault@node NORMAL",
    );
    keep(&mut player.engine, &mut player.store);
    assert!(!player.store.keys().any(|key| key.starts_with(b"alarm/")));
}

#[test]
fn damaged_entries_are_told_and_dropped_and_the_rest_goes_on() {
    let mut player = busy();
    for (key, value) in &mut player.store {
        if key.starts_with(b"alarm/") && String::from_utf8_lossy(value).contains("sensor_lost") {
            value.truncate(20);
        }
    }
    player.store.insert(b"alarm/x".to_vec(), b"{}".to_vec());
    player.store.insert(b"device/BAD NAME".to_vec(), b"{}".to_vec());
    player.store.insert(b"\xff".to_vec(), Vec::new());
    player.restart_under(rules());
    assert_eq!(player.notes.len(), 4, "{:?}", player.notes);
    assert!(player.notes.iter().all(|note| matches!(note, RestoreNote::Unreadable { .. })));
    assert!(player.notes.iter().any(|note| note.to_string().contains("device/BAD NAME")));
    player.play("65 smoke clear => cleared smoke@smoke CLEARED_UNACK");
    keep(&mut player.engine, &mut player.store);
    player.notes.clear();
    player.restart_under(rules());
    assert_eq!(player.notes, [], "what was dropped is removed");
}

#[test]
fn a_lost_ledger_does_not_number_a_spot_twice() {
    let mut player = busy();
    player.store.remove(b"ledger".as_slice());
    player.restart_under(rules());
    player.play(
        "64  cam see car1:a:0 car2:b:64
         124 cam see car1:a:0 car2:b:64 => still of track 2
         126 => raised illegal_parking@cam ACTIVE_UNACK, raised door_left_open@door ACTIVE_UNACK",
    );
    assert_eq!(player.engine.open_alarms().count(), 5);
}

#[test]
fn alarms_of_devices_and_zones_no_longer_configured_end_with_an_explanation() {
    let mut player = busy();
    let mut fewer = rules();
    fewer.devices.remove(&slug("smoke"));
    fewer.zones.remove(&(slug("cam"), slug("east")));
    player.restart_under(fewer);
    assert!(player.engine.next_due().unwrap() <= at(62.0));
    player.play("62 tick => over smoke@smoke NORMAL, over illegal_parking@cam NORMAL\n62.1 tick");
    let alarm = player.last("smoke@smoke");
    assert_eq!(alarm.explanation.rule, "configuration.removed");
    assert!(player.notes.iter().all(|note| matches!(note, RestoreNote::NotConfigured { .. })));
    assert_eq!(player.notes.len(), 4, "two alarms, a device, a spot: {:?}", player.notes);
}

#[test]
fn a_zone_that_forbids_something_else_now_ends_its_old_alarms() {
    let mut player = busy();
    let mut changed = rules();
    changed.zones.get_mut(&(slug("cam"), slug("east"))).unwrap().kind = ZoneKind::FireLaneBlocked;
    player.restart_under(changed);
    player.play("62 tick => over illegal_parking@cam NORMAL");
}

#[test]
fn an_alarm_whose_place_is_lost_ends_and_the_vehicle_gets_a_new_one() {
    let mut player = busy();
    player.store.retain(|key, _| !key.starts_with(b"spot/"));
    player.restart_under(rules());
    assert!(matches!(player.notes.as_slice(), [RestoreNote::Incomplete { .. }]), "{:?}", player.notes);
    player.play(
        "62 tick             => over illegal_parking@cam NORMAL
         63 cam see car1:a:0 => still of track 1
         65 tick             => raised illegal_parking@cam ACTIVE_UNACK",
    );
}

#[test]
fn a_spot_whose_alarm_is_lost_is_dropped() {
    let mut player = busy();
    player.store.retain(|key, value| {
        !(key.starts_with(b"alarm/") && String::from_utf8_lossy(value).contains("illegal_parking"))
    });
    player.restart_under(rules());
    assert!(matches!(player.notes.as_slice(), [RestoreNote::Incomplete { .. }]), "{:?}", player.notes);
    player.play("63 cam see car1:a:0 => still of track 1");
}
