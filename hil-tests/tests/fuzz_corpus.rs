//! Every decoder of bytes from outside on its committed corpus and on seeded mutations of it. Goal: nothing that the fuzzer once found comes
//! back, and each run of the tests fuzzes a little. Method: the functions that `make fuzz` runs for hours, without coverage guidance.
//! `GENGFU_SEED` replays a run, `GENGFU_ROUNDS` makes it longer.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use hil_tests::fuzz::{TARGETS, Target};
use hil_tests::node::{rounds, seed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Mutations of each corpus file.
const ROUNDS: usize = 200;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries =
        fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}; each target has a corpus", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

fn mutate(random: &mut StdRng, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = inputs[random.random_range(0..inputs.len())].clone();
    for _ in 0..random.random_range(1..8) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = random.random(),
            2 => bytes.insert(at, random.random()),
            3 => drop(bytes.drain(at..(at + random.random_range(0..16)).min(bytes.len()))),
            4 => bytes.truncate(at),
            _ => {
                let other = &inputs[random.random_range(0..inputs.len())];
                let from = random.random_range(0..=other.len());
                let piece = other[from..(from + random.random_range(0..64)).min(other.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

fn run((name, target): &Target, seed: u64) {
    let inputs = corpus(name);
    for input in &inputs {
        target(input);
    }
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..rounds(ROUNDS) * inputs.len() {
        target(&mutate(&mut random, &inputs));
    }
}

#[test]
fn no_decoder_panics_on_its_corpus_or_near_it() {
    let seed = seed();
    for target in TARGETS {
        println!("{}", target.0);
        run(target, seed);
    }
}

#[test]
fn every_corpus_and_every_fuzzer_belongs_to_a_target() {
    for folder in ["corpus", "targets"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder);
        let mut found: Vec<String> = fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().trim_end_matches(".rs").to_owned())
            .collect();
        found.sort();
        let mut expected: Vec<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        expected.sort();
        assert_eq!(found, expected, "{}", path.display());
    }
}
