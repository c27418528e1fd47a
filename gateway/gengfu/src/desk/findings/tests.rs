//! Judgements, and the adversary: whatever is done to a recorded stream, the desk names exactly that.

use gengfu_contract::chain;
use gengfu_contract::event::Event;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::*;
use gengfu_contract::testing::{at, chain_after, chain_of, head_of, statement};

fn stated(sequence: u64, pending: u64, dropped: u64) -> Stated {
    let mut said = statement(sequence, pending);
    said.dropped = [(Lane::Telemetry, dropped)].into();
    Stated { statement: said, received_at: at(i64::try_from(sequence).unwrap() + 100) }
}

fn judged(events: &[&Event], stated: Option<&Stated>) -> Vec<Finding> {
    let mut ledger = SequenceLedger::default();
    for (second, event) in (0..).zip(events) {
        ledger.take(event, at(second));
    }
    if let Some(stated) = stated {
        ledger.state(&stated.statement, stated.received_at);
    }
    judge(&ledger, stated, false)
}

fn fates(findings: &[Finding]) -> Vec<(u64, u64, Fate)> {
    let fate = |finding: &Finding| match finding {
        Finding::Missing { first, last, fate, .. } => Some((*first, *last, *fate)),
        _ => None,
    };
    findings.iter().filter_map(fate).collect()
}

#[test]
fn what_is_missing_is_pending_dropped_or_lost_as_the_statement_says() {
    let events = chain_of(9);
    let some: Vec<_> = [1, 2, 3, 6, 7, 8, 9].map(|n: usize| &events[n - 1]).into();
    assert_eq!(fates(&judged(&some, None)), [(4, 5, Fate::Unknown)]);
    let cases =
        [((9, 2, 0), Fate::Pending), ((9, 0, 2), Fate::Dropped), ((9, 0, 0), Fate::Lost), ((9, 1, 0), Fate::Lost)];
    for ((sequence, pending, dropped), fate) in cases {
        let findings = judged(&some, Some(&stated(sequence, pending, dropped)));
        assert_eq!(fates(&findings), [(4, 5, fate)], "pending {pending} dropped {dropped}");
    }
    // A statement that is older than the gap says nothing of it.
    assert_eq!(fates(&judged(&some, Some(&stated(3, 0, 0)))), [(4, 5, Fate::Unknown)]);
}

#[test]
fn a_backlog_does_not_hide_a_loss_that_is_older_than_it() {
    let mut events = chain_of(9);
    events.iter_mut().zip(0..).for_each(|(event, second)| event.recordedtime = at(second));
    let some: Vec<_> = [1, 2, 4, 5].map(|n: usize| &events[n - 1]).into();
    let mut said = stated(9, 5, 0);
    // 6 to 9 wait; the oldest of them is younger than 4, which came after the gap.
    said.statement.oldest_pending_at = Some(at(5));
    assert_eq!(fates(&judged(&some, Some(&said))), [(3, 3, Fate::Lost), (6, 9, Fate::Pending)]);
}

#[test]
fn pictures_that_wait_do_not_excuse_missing_events() {
    let events = chain_of(3);
    let mut said = stated(3, 0, 0);
    said.statement.pending = [(Lane::Evidence, 7)].into();
    assert_eq!(fates(&judged(&[&events[0], &events[2]], Some(&said))), [(2, 2, Fate::Lost)]);
}

#[test]
fn every_finding_says_in_both_languages_which_and_since_when() {
    let mut events = chain_of(9);
    events[6].data["x"] = 1.into();
    let mut altered = events[1].clone();
    altered.data["x"] = 1.into();
    let some: Vec<_> = events[..3].iter().chain([&altered]).chain(&events[4..]).collect();
    let findings = judged(&some, Some(&stated(12, 0, 3)));
    let texts: Vec<_> = findings.iter().map(Finding::text).collect();
    let all: String = texts.iter().map(|text| format!("{}\n", text.en)).collect();
    for part in ["#4", "#10…12", "#7 was changed", "#2 (e2)", "telemetry 3", &time(at(4))] {
        assert!(all.contains(part), "{part} in {all}");
    }
    assert!(texts.iter().all(|text| !text.zh.is_ascii()));
}

/// What an adversary did to a stream of `count` events.
#[derive(Debug)]
enum Deed {
    Nothing,
    Dropped(Vec<u64>),
    Repeated,
    Reordered,
    Corrupted(u64),
    AlteredCopy(u64),
    ForgedPrevHash(u64),
    Replaced { box_at: usize },
    SetBack { to: u64 },
}

const COUNT: u64 = 60;

/// Chooses a deed by the seed and does it: the stream as it arrives, and the heads the gateway states.
fn deed(random: &mut StdRng) -> (Deed, Vec<Event>, Statement) {
    let events = chain_of(COUNT);
    let said = |events: &[Event]| Statement { head: head_of(events), ..statement(events.len() as u64, 0) };
    let mut stream = events.clone();
    let inner = random.random_range(2..COUNT);
    let at_inner = usize::try_from(inner).unwrap() - 1;
    let mut now = said(&events);
    let deed = match random.random_range(0..9) {
        0 => Deed::Nothing,
        1 => {
            let mut gone: Vec<u64> = (0..random.random_range(1..4)).map(|_| random.random_range(2..=COUNT)).collect();
            gone.sort_unstable();
            gone.dedup();
            stream.retain(|event| !gone.contains(&event.sequence));
            Deed::Dropped(gone)
        }
        2 => {
            stream.push(events[at_inner].clone());
            Deed::Repeated
        }
        3 => {
            stream.shuffle(random);
            Deed::Reordered
        }
        4 => {
            stream[at_inner].data["what"] = "nothing happened".into();
            Deed::Corrupted(inner)
        }
        5 => {
            let mut altered = events[at_inner].clone();
            altered.data["what"] = "nothing happened".into();
            stream.push(altered);
            Deed::AlteredCopy(inner)
        }
        6 => {
            stream[at_inner].prevhash = hex::encode(chain::hash(b"forged"));
            Deed::ForgedPrevHash(inner)
        }
        7 => {
            let other = chain_after(0, chain::GENESIS, 20, "other");
            now = Statement { at: at(COUNT as i64 + 5), ..said(&other) };
            let box_at = stream.len();
            stream.extend(other);
            Deed::Replaced { box_at }
        }
        _ => {
            let old = &events[..at_inner + 1];
            let anew = chain_after(inner, chain::hash(&chain::canonical(&old[at_inner]).unwrap()), 15, "anew");
            let whole: Vec<Event> = old.iter().chain(&anew).cloned().collect();
            now = Statement { at: at(COUNT as i64 + 5), ..said(&whole) };
            stream.extend(anew);
            Deed::SetBack { to: inner }
        }
    };
    (deed, stream, now)
}

/// What the desk must say of a deed, and nothing else: the kinds of its findings with their numbers.
fn named(deed: &Deed) -> Vec<String> {
    let mut names: Vec<String> = match deed {
        Deed::Nothing | Deed::Repeated | Deed::Reordered => Vec::new(),
        Deed::Dropped(gone) => gone.iter().map(|n| format!("lost {n}")).collect(),
        Deed::Corrupted(n) | Deed::ForgedPrevHash(n) => vec![format!("changed {n}")],
        Deed::AlteredCopy(n) => vec![format!("altered {n}")],
        Deed::Replaced { .. } => vec!["reborn".into(), format!("back {COUNT} 20")],
        // Fifteen new events may reach beyond the old end: then the gateway never stated fewer.
        Deed::SetBack { to } if to + 15 < COUNT => vec![format!("forked {to}"), format!("back {COUNT} {}", to + 15)],
        Deed::SetBack { to } => vec![format!("forked {to}")],
    };
    names.sort();
    names
}

fn names(findings: &[Finding]) -> Vec<String> {
    let mut names: Vec<String> = findings
        .iter()
        .flat_map(|finding| match finding {
            Finding::Missing { first, last, fate, .. } => {
                (*first..=*last).map(|n| format!("{fate:?} {n}").to_lowercase()).collect()
            }
            Finding::Changed { sequence } => vec![format!("changed {sequence}")],
            Finding::Altered(altered) => vec![format!("altered {}", altered.sequence)],
            Finding::Forked { after, .. } => vec![format!("forked {after}")],
            Finding::Reborn { .. } => vec!["reborn".to_owned()],
            Finding::WentBack(back) => vec![format!("back {} {}", back.from, back.to)],
            other => vec![format!("{other:?}")],
        })
        .collect();
    names.sort();
    names
}

#[test]
fn whatever_an_adversary_does_to_the_stream_the_desk_names_exactly_that() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = number("GENGFU_SEED").map_or(0..number("GENGFU_SEEDS").unwrap_or(2000), |seed| seed..seed + 1);
    for seed in seeds {
        let mut random = StdRng::seed_from_u64(seed);
        let (deed, stream, now) = deed(&mut random);
        let mut ledger = SequenceLedger::default();
        let before = chain_of(COUNT);
        for (second, event) in (0..).zip(&stream) {
            // The gateway as it was before it was replaced or set back had stated its journal.
            if second == i64::try_from(COUNT).unwrap() {
                ledger.state(&Statement { head: head_of(&before), ..statement(COUNT, 0) }, at(second));
            }
            ledger.take(event, at(second));
        }
        let received_at = at(i64::try_from(stream.len()).unwrap() + 1);
        ledger.state(&now, received_at);
        let findings = judge(&ledger, Some(&Stated { statement: now, received_at }), false);
        assert_eq!(names(&findings), named(&deed), "seed {seed}: {deed:?}\n{:?}", ledger.strands());
        let copies = u64::from(matches!(deed, Deed::Repeated));
        assert_eq!(ledger.duplicates(), copies, "seed {seed}: {deed:?}");
        if let Deed::Replaced { box_at } = deed {
            let since = at(i64::try_from(box_at).unwrap());
            assert!(findings.contains(&Finding::Reborn { since }), "seed {seed}");
        }
    }
}
