//! Goal: whatever a power cut leaves, there is one valid choice. Method: a folder that stops working before, in the middle of or after each of
//! its steps, and then shows either what was done or only what was synced; every such cut of every operation is tried.

use super::super::testing::{Authority, CutFolder, Moment, NOW};
use super::super::time::Reading;
use super::*;

const NAME: &str = "jinding.block-7";

struct Bench {
    folder: CutFolder,
    ca: Authority,
}

impl Bench {
    fn new() -> Self {
        Self { folder: CutFolder::default(), ca: Authority::new("ca") }
    }

    fn open(&self) -> Slots {
        Slots::over(Box::new(self.folder.clone()), Path::new("/identity")).unwrap()
    }

    /// One whole enrolment up to `next`.
    fn enrol(&self, slots: &mut Slots) -> Result<(), SlotError> {
        let key = slots.request_key(false)?;
        let certificate = self.ca.client(&key, NAME, NOW);
        let roots = [self.ca.der()];
        let now = Reading::Known("2026-01-01T00:00:00Z".parse().unwrap());
        slots.offer(&[certificate], wanted_by(NAME, &roots, "ca.pem", now)).map(|_| ())
    }
}

fn refusal() -> RefusedNext {
    RefusedNext { at: Timestamp::UNIX_EPOCH, serial: "07".into(), reason: "revoked".into() }
}

/// Cuts `operation` at every step and moment; `judge` sees what is left after each reboot.
fn every_cut(
    prepare: impl Fn(&Bench),
    operation: impl Fn(&Bench, &mut Slots) -> Result<(), SlotError>,
    judge: impl Fn(&Bench, &str),
) -> usize {
    let mut cuts = 0;
    for step in 0..64 {
        for moment in [Moment::Before, Moment::Torn, Moment::After] {
            for synced_only in [false, true] {
                let bench = Bench::new();
                prepare(&bench);
                bench.folder.reboot(false);
                let mut slots = bench.open();
                bench.folder.cut_at(step, moment);
                let done = operation(&bench, &mut slots);
                if done.is_ok() {
                    assert!(step > 2, "the operation has several steps");
                    return cuts;
                }
                bench.folder.reboot(synced_only);
                judge(&bench, &format!("cut {moment:?} step {step}, synced only: {synced_only}"));
                cuts += 1;
            }
        }
    }
    panic!("an operation with more than 64 steps");
}

#[test]
fn a_cut_first_enrolment_can_always_be_finished() {
    let cuts = every_cut(
        |_| {},
        |bench, slots| bench.enrol(slots).and_then(|()| slots.promote()),
        |bench, what| {
            let mut slots = bench.open();
            // What is there is whole.
            let (next, current) = (slots.next().expect(what), slots.current().expect(what));
            assert!(slots.requested().is_ok(), "{what}");
            if current.is_none() {
                if next.is_none() {
                    bench.enrol(&mut slots).expect(what);
                }
                slots.promote().expect(what);
            }
            assert_eq!(slots.current().unwrap().unwrap().facts.common_name, NAME, "{what}");
            assert!(bench.open().requested().unwrap().is_none(), "no used key waits: {what}");
        },
    );
    assert!(cuts >= 40, "{cuts}");
}

#[test]
fn a_cut_renewal_leaves_the_old_or_the_new_certificate_whole_and_never_neither() {
    let prepare = |bench: &Bench| {
        let mut slots = bench.open();
        bench.enrol(&mut slots).unwrap();
        slots.promote().unwrap();
    };
    let cuts = every_cut(
        prepare,
        |bench, slots| bench.enrol(slots).and_then(|()| slots.promote()),
        |bench, what| {
            let slots = bench.open();
            slots.current().expect(what).expect(what);
            slots.next().expect(what);
        },
    );
    assert!(cuts >= 40, "{cuts}");
}

#[test]
fn a_cut_refusal_leaves_the_old_one_in_use_and_the_new_one_refused_or_to_be_tried_again() {
    let prepare = |bench: &Bench| {
        let mut slots = bench.open();
        bench.enrol(&mut slots).unwrap();
        slots.promote().unwrap();
        bench.enrol(&mut slots).unwrap();
    };
    every_cut(
        prepare,
        |_, slots| slots.refuse(&refusal()),
        |bench, what| {
            let mut slots = bench.open();
            slots.current().expect(what).expect(what);
            if slots.next().expect(what).is_some() {
                slots.refuse(&refusal()).expect(what);
            }
            assert_eq!((slots.next().unwrap(), slots.refused()), (None, Some(refusal())), "{what}");
        },
    );
}

#[test]
fn a_waiting_key_is_used_again_until_its_certificate_is_there_and_a_promotion_forgets_the_refusal() {
    let bench = Bench::new();
    let mut slots = bench.open();
    let key = slots.request_key(false).unwrap();
    assert_eq!(slots.request_key(false).unwrap(), key, "asking twice does not spoil what is being signed");
    assert_ne!(slots.request_key(true).unwrap(), key);
    bench.enrol(&mut slots).unwrap();
    slots.refuse(&refusal()).unwrap();
    bench.enrol(&mut slots).unwrap();
    slots.promote().unwrap();
    assert_eq!(slots.refused(), None);
    assert!(matches!(
        slots.offer(&[], |_, _| unreachable!("without a request nothing is checked")),
        Err(SlotError::NoRequest)
    ));
    assert!(slots.promote().is_err(), "there is nothing to promote");
    slots.current().unwrap().unwrap();
}
