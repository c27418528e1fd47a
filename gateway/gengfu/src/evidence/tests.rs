//! Goal: at every moment a picture is there whole or not at all, nothing plain lies on the disk, and what is shredded stays so. Method: a folder whose
//! power can be cut before, within and after each step, with every subset of what was not synced lost; and a real folder for what the disk really holds.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::disk::Place;
use super::keeper::{Facts, Looked};
use super::seal::BoxKey;
use super::vault::Recovered;
use super::*;

const JPEG: &[u8] = b"\xff\xd8\xff\xe0\x00\x10JFIF a street with nobody in it \xff\xd9";
const DAY: i64 = 86_400;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn picture(id: &str, n: u32) -> Picture<'_> {
    Picture { id, n, camera: "cam-1", caption: "past the limit", taken_at: at(0), jpeg: JPEG }
}

/// A change of the folder that is not durable before the next sync.
#[derive(Debug, Clone)]
enum Change {
    Link(String, usize),
    Rename(String, String),
    Unlink(String),
}

#[derive(Debug, Clone, Default)]
struct Disk {
    /// Contents by inode: durable at once, as every step syncs them.
    inodes: Vec<Vec<u8>>,
    durable: BTreeMap<String, usize>,
    now: BTreeMap<String, usize>,
    pending: Vec<Change>,
    steps: usize,
    /// The step at which the power goes, and whether half of it is done.
    cut: Option<(usize, bool)>,
    is_dead: bool,
}

fn apply(names: &mut BTreeMap<String, usize>, change: &Change) {
    match change {
        Change::Link(name, inode) => drop(names.insert(name.clone(), *inode)),
        Change::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        Change::Unlink(name) => drop(names.remove(name)),
    }
}

impl Disk {
    /// Every disk that may be found when the power is back: any of the changes that were not synced may be lost.
    fn after_the_cut(&self) -> Vec<Disk> {
        (0..1_usize << self.pending.len())
            .map(|subset| {
                let mut durable = self.durable.clone();
                let kept = self.pending.iter().enumerate().filter(|(n, _)| subset & (1 << n) != 0);
                kept.for_each(|(_, change)| apply(&mut durable, change));
                Disk { inodes: self.inodes.clone(), now: durable.clone(), durable, ..Disk::default() }
            })
            .collect()
    }
}

#[derive(Debug, Clone, Default)]
struct SimPlace(Arc<Mutex<Disk>>);

impl SimPlace {
    fn with(disk: Disk) -> Self {
        Self(Arc::new(Mutex::new(disk)))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    /// One step begins: `Ok(false)` whole, `Ok(true)` half of it and then darkness.
    fn step(&self) -> io::Result<(MutexGuard<'_, Disk>, bool)> {
        let mut disk = self.disk();
        let (step, dark) = (disk.steps, io::Error::other("no power"));
        disk.steps += 1;
        match disk.cut {
            _ if disk.is_dead => Err(dark),
            Some((cut, half)) if cut == step => {
                disk.is_dead = true;
                if half { Ok((disk, true)) } else { Err(dark) }
            }
            _ => Ok((disk, false)),
        }
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let (mut disk, half) = self.step()?;
        apply(&mut disk.now, &change);
        disk.pending.push(change);
        if half { Err(io::Error::other("no power")) } else { Ok(()) }
    }
}

impl Place for SimPlace {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.disk().now.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let disk = self.disk();
        Ok(disk.now.get(name).map(|inode| disk.inodes[*inode].clone()))
    }

    fn written_at(&self, _name: &str) -> Option<Timestamp> {
        Some(at(-DAY))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let (mut disk, half) = self.step()?;
        let inode = disk.inodes.len();
        disk.inodes.push(bytes[..if half { bytes.len() / 2 } else { bytes.len() }].to_vec());
        let change = Change::Link(name.to_owned(), inode);
        apply(&mut disk.now, &change);
        disk.pending.push(change);
        if half { Err(io::Error::other("no power")) } else { Ok(()) }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn wipe(&self, name: &str) -> io::Result<()> {
        let (mut disk, half) = self.step()?;
        if let Some(inode) = disk.now.get(name).copied() {
            let bytes = &mut disk.inodes[inode];
            let upto = if half { bytes.len() / 2 } else { bytes.len() };
            bytes[..upto].fill(0);
        }
        if half { Err(io::Error::other("no power")) } else { Ok(()) }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if self.disk().now.contains_key(name) { self.change(Change::Unlink(name.to_owned())) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let (mut disk, half) = self.step()?;
        if half {
            return Err(io::Error::other("no power"));
        }
        disk.pending.clear();
        disk.durable = disk.now.clone();
        Ok(())
    }
}

fn vault_on(place: &SimPlace, key: &BoxKey) -> Vault {
    Vault::on(Box::new(place.clone()), key.clone())
}

/// Does `deed` on a copy of `before`, with the power cut at every step, before and in the middle of it; calls `judge` for every disk that may be left, with
/// whether the deed had said that it was done.
fn with_every_cut(
    before: &Disk,
    key: &BoxKey,
    deed: &dyn Fn(&Vault) -> bool,
    judge: &dyn Fn(&Disk, bool, &str),
) -> usize {
    let mut cuts = 0;
    for step in 0.. {
        for half in [false, true] {
            let place = SimPlace::with(Disk { cut: Some((step, half)), steps: 0, ..before.clone() });
            let said = deed(&vault_on(&place, key));
            let disk = place.disk().clone();
            for (n, left) in disk.after_the_cut().iter().enumerate() {
                judge(left, said, &format!("step {step}, half {half}, subset {n}"));
                cuts += 1;
            }
            if !disk.is_dead {
                assert!(said, "nothing stops a deed that has power");
                return cuts;
            }
        }
    }
    unreachable!("a deed has an end")
}

/// After the power is back: what is there opens, what does not open is gone, and nothing of a picture can be seen.
fn found(left: &Disk, key: &BoxKey, id: &str, place: &str) -> bool {
    let disk = SimPlace::with(left.clone());
    let vault = vault_on(&disk, key);
    vault.recover().unwrap();
    let names = disk.names().unwrap();
    let of_it: Vec<&String> = names.iter().filter(|name| name.contains(id)).collect();
    for name in &names {
        let bytes = disk.read(name).unwrap().unwrap();
        assert!(!holds(&bytes, &JPEG[..8]) && !holds(&bytes, b"street"), "{place}: {name} is in the open");
    }
    match vault.read(id, 1) {
        Ok(plain) => {
            assert_eq!((plain.as_slice(), of_it.len()), (JPEG, 3), "{place}: {of_it:?}");
            assert_eq!(vault.entries().unwrap().iter().filter(|entry| entry.id == id).count(), 1, "{place}");
            true
        }
        Err(error) => {
            assert!(matches!(error, VaultError::Gone { .. }), "{place}: {error}");
            assert!(of_it.is_empty(), "{place}: an orphan is left: {of_it:?}");
            false
        }
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_power_cut_at_any_step_leaves_a_picture_whole_or_nothing_of_it() {
    let key = BoxKey::generate().unwrap();
    let put = |vault: &Vault| vault.put(&picture("01A", 1), at(1)).is_ok();
    let cuts = with_every_cut(&Disk::default(), &key, &put, &|left, said, place| {
        let there = found(left, &key, "01A", place);
        assert!(there || !said, "{place}: it was said to be kept");
    });
    println!("{cuts} disks after a cut while a picture is put in");

    let place = SimPlace::default();
    vault_on(&place, &key).put(&picture("01A", 1), at(1)).unwrap();
    let whole = place.disk().clone();
    let confirm = |vault: &Vault| {
        let entry = vault.entry("01A", 1).unwrap().unwrap();
        vault.note(&Entry { confirmed_at: Some(at(2)), ..entry }).is_ok()
    };
    let cuts = with_every_cut(&whole, &key, &confirm, &|left, said, place| {
        assert!(found(left, &key, "01A", place), "{place}: a picture is lost by a note about it");
        let entry = vault_on(&SimPlace::with(left.clone()), &key).entry("01A", 1).unwrap().unwrap();
        assert!(entry.confirmed_at.is_some() || !said, "{place}");
    });
    println!("{cuts} disks after a cut while it is confirmed");

    let shred = |vault: &Vault| vault.shred("01A", 1).is_ok();
    let cuts = with_every_cut(&whole, &key, &shred, &|left, said, place| {
        let there = found(left, &key, "01A", place);
        assert!(!there || !said, "{place}: it was said to be shredded");
    });
    println!("{cuts} disks after a cut while it is shredded");
}

#[test]
fn a_picture_in_the_open_is_sealed_and_lost_by_no_power_cut() {
    let key = BoxKey::generate().unwrap();
    let before = SimPlace::default();
    before.write("01A-1.jpg", JPEG).unwrap();
    before.write(".01B-1.jpg.part", &JPEG[..20]).unwrap();
    before.sync().unwrap();
    let before = before.disk().clone();
    let take_over = |vault: &Vault| vault.recover().is_ok();
    let cuts = with_every_cut(&before, &key, &take_over, &|left, _, place| {
        assert!(found(left, &key, "01A", place), "{place}: it is lost");
        assert!(!found(left, &key, "01B", place), "{place}");
    });
    println!("{cuts} disks after a cut while a picture is taken over");
    let place = SimPlace::with(before);
    let vault = vault_on(&place, &key);
    assert_eq!(vault.recover().unwrap(), Recovered { removed: 0, taken_over: vec![("01A".to_owned(), 1)] });
    assert_eq!(vault.recover().unwrap(), Recovered::default());
    let entry = vault.entry("01A", 1).unwrap().unwrap();
    assert_eq!((entry.taken_at, entry.confirmed_at), (at(-DAY), Some(at(-DAY))));
}

#[test]
fn what_is_shredded_opens_with_no_key_even_when_every_other_file_is_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let evidence = Evidence::open(dir.path()).unwrap();
    evidence.vault.put(&picture("01A", 1), at(1)).unwrap();
    let folder = dir.path().join("evidence");
    let sealed = std::fs::read(folder.join("01A-1.sealed")).unwrap();
    let json = std::fs::read(folder.join("01A-1.json")).unwrap();
    // Somebody keeps the key file open: what they can still read of it is overwritten.
    let mut held = std::fs::File::open(folder.join("01A-1.key")).unwrap();
    assert!(evidence.shred("01A", 1, "user:li", Some("asked to"), at(2)).unwrap());
    let mut key = Vec::new();
    io::Read::read_to_end(&mut held, &mut key).unwrap();
    assert!(!key.is_empty() && key.iter().all(|byte| *byte == 0));
    for (name, bytes) in [("01A-1.sealed", &sealed), ("01A-1.json", &json), ("01A-1.key", &key)] {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    assert!(matches!(evidence.vault.read("01A", 1), Err(VaultError::Sealed { .. })));
    assert_eq!(Evidence::open(dir.path()).unwrap().vault.recover().unwrap().removed, 1);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    let (looks, _) = evidence.log.read().unwrap();
    assert_eq!((looks.len(), looks[0].deed, looks[0].who.as_str()), (1, Deed::Shredded, "user:li"));
}

#[test]
fn the_disk_holds_nothing_plain_and_wrong_swapped_or_cut_files_are_refused_with_place_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("evidence");
    let evidence = Evidence::open(dir.path()).unwrap();
    evidence.vault.put(&picture("01A", 1), at(1)).unwrap();
    evidence.vault.put(&Picture { jpeg: b"\xff\xd8\xff another", ..picture("01B", 1) }, at(1)).unwrap();
    assert!(matches!(evidence.vault.put(&picture("01A", 1), at(2)), Err(VaultError::Exists { .. })));
    for id in ["", "../x", "a/b", "a b", "图", &"x".repeat(65)] {
        assert!(matches!(evidence.vault.put(&picture(id, 1), at(2)), Err(VaultError::Id(_))), "{id:?}");
    }
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        assert!(!holds(&bytes, &JPEG[..8]) && !holds(&bytes, b"street"), "{}", path.display());
    }
    let mode = |path: &Path| std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).unwrap().permissions());
    assert_eq!(mode(&dir.path().join("evidence.key")) & 0o777, 0o600);
    assert_eq!(mode(&folder.join("01A-1.sealed")) & 0o777, 0o600);

    let refused = |evidence: &Evidence| {
        let error = evidence.vault.read("01A", 1).unwrap_err();
        assert!(matches!(error, VaultError::Sealed { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("01A-1.sealed") && text.contains("evidence.key"), "place and remedy: {text}");
    };
    let sealed = std::fs::read(folder.join("01A-1.sealed")).unwrap();
    std::fs::write(folder.join("01A-1.sealed"), &sealed[..sealed.len() - 1]).unwrap();
    refused(&evidence);
    std::fs::copy(folder.join("01B-1.sealed"), folder.join("01A-1.sealed")).unwrap();
    refused(&evidence);
    std::fs::write(folder.join("01A-1.sealed"), &sealed).unwrap();
    assert_eq!(evidence.vault.read("01A", 1).unwrap(), JPEG);
    // The box's key is lost or another's: the gateway starts, and says so of each picture.
    std::fs::write(dir.path().join("evidence.key"), [7; 32]).unwrap();
    refused(&Evidence::open(dir.path()).unwrap());
    std::fs::write(dir.path().join("evidence.key"), [7; 31]).unwrap();
    let error = Evidence::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("evidence.key") && error.contains("move the file away"), "{error}");
    // A gateway does not stay away for that: it makes a new key, and the old one can be put back.
    let renewed = Evidence::open_or_renew(dir.path()).unwrap();
    refused(&renewed);
    assert_eq!(std::fs::read(dir.path().join("evidence.key.bad")).unwrap(), [7; 31]);
    assert!(!format!("{evidence:?}").contains("key:"), "{evidence:?}");
}

#[test]
fn a_look_is_logged_before_it_is_given_and_refused_when_it_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let evidence = Evidence::open(dir.path()).unwrap();
    evidence.vault.put(&picture("01A", 1), at(1)).unwrap();
    assert_eq!(evidence.show("01A", 1, "user:li", Some("complaint 7"), at(2)).unwrap(), JPEG);
    let sha256 = evidence.vault.entry("01A", 1).unwrap().unwrap().sha256;
    assert_eq!(evidence.send("01A", 1, &sha256, at(3)).unwrap().unwrap(), JPEG);
    assert_eq!(evidence.send("01A", 1, &"00".repeat(32), at(3)).unwrap(), None, "not what the event names");
    evidence.snapshot_taken("c1", 1, "op-7", "cam-1", at(4));
    let (looks, _) = evidence.log.read().unwrap();
    let told: Vec<(Deed, &str)> = looks.iter().map(|look| (look.deed, look.who.as_str())).collect();
    assert_eq!(told, [(Deed::Shown, "user:li"), (Deed::Sent, "uplink"), (Deed::Snapshot, "centre:op-7")]);
    assert_eq!(looks[0].reason.as_deref(), Some("complaint 7"));
    std::fs::remove_file(evidence.log.path()).unwrap();
    std::fs::create_dir(evidence.log.path()).unwrap();
    assert!(matches!(evidence.show("01A", 1, "user:li", None, at(5)), Err(ShowError::Log { .. })));
    assert!(evidence.send("01A", 1, &sha256, at(5)).unwrap().is_some(), "the centre gets it all the same");
}

#[test]
fn pictures_are_confirmed_closed_and_ended_by_what_others_know() {
    let dir = tempfile::tempdir().unwrap();
    let evidence = Evidence::open(dir.path()).unwrap();
    let policy = Policy {
        keep: Duration::from_secs(7 * 86_400),
        candidate: Duration::from_secs(600),
        bytes_max: 3 * JPEG.len() as u64,
    };
    for id in ["01A", "01B", "01C"] {
        evidence.vault.put(&picture(id, 1), at(0)).unwrap();
    }
    let look = |named: &[&str], open: Option<&[&str]>, seconds: i64| {
        let is_named = |id: &str, _: u32| named.contains(&id);
        let open = open.map(|open| open.iter().map(|id| (*id).to_owned()).collect());
        let facts = Facts { is_named: &is_named, open: open.as_ref() };
        let Looked { pictures, ended, .. } = evidence.look_after(&facts, &policy, at(seconds)).unwrap();
        (pictures, ended)
    };
    let closed = |id: &str| evidence.vault.entry(id, 1).unwrap().and_then(|entry| entry.closed_at);
    assert_eq!(look(&["01A", "01B"], None, 60), (3, 0));
    assert_eq!(closed("01A"), None, "nobody knows yet which alarms are open");
    assert_eq!(look(&["01A", "01B"], Some(&["01A"]), 120), (3, 0));
    assert_eq!((closed("01A"), closed("01B")), (None, Some(at(120))));
    // The alarm was raised a moment ago and counts as open now.
    look(&["01A", "01B"], Some(&["01A", "01B"]), 180);
    assert_eq!(closed("01B"), None);
    assert_eq!(look(&["01A", "01B"], Some(&["01A"]), 600), (2, 1), "the candidate ends");
    // What was delivered long ago is not in the outbox any more, and still confirmed.
    assert_eq!(look(&[], Some(&["01A"]), 600 + 7 * DAY - 1), (2, 0));
    assert_eq!(look(&[], Some(&["01A"]), 600 + 7 * DAY), (1, 1));
    assert_eq!(look(&[], Some(&["01A"]), 30 * DAY), (0, 1), "no picture is older, open or not");
    for (n, id) in ["02A", "02B", "02C", "02D"].iter().enumerate() {
        let taken_at = at(31 * DAY + i64::try_from(n).unwrap());
        evidence.vault.put(&Picture { taken_at, ..picture(id, 1) }, taken_at).unwrap();
    }
    assert_eq!(look(&["02A", "02B", "02C", "02D"], Some(&[]), 31 * DAY + 10), (3, 1));
    assert!(evidence.vault.entry("02A", 1).unwrap().is_none(), "the oldest makes room");
    // What an event names is nobody's to discard, confirmed yet or not.
    assert_eq!(evidence.vault.shred_candidates("02B", |_| false).unwrap(), 0);
    evidence.vault.put(&Picture { taken_at: at(31 * DAY), ..picture("03A", 1) }, at(31 * DAY)).unwrap();
    assert_eq!(evidence.vault.shred_candidates("03A", |_| true).unwrap(), 0);
    assert_eq!(evidence.vault.shred_candidates("03A", |_| false).unwrap(), 1);
    let (looks, _) = evidence.log.read().unwrap();
    let why: Vec<_> = looks.iter().filter_map(|look| look.reason.as_deref()).collect();
    assert_eq!(why, ["unconfirmed", "kept", "age", "room"]);
}
