//! `gengfu firmware`: make, sign and check bundles of a node's firmware, and the files that a new node is flashed with by cable.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use gengfu_contract::slug::Slug;
use gengfu_wire::update::key_page;
use gengfu_wire::{FirmwareVersion, Slot, Uid};
use object::Endianness;
use object::elf::{FileHeader32, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

use super::SocketArgs;
use crate::link::bundle::{About, Bundle};
use crate::local::socket::{Answer, Query, ask};
use crate::signed::{PublicKey, SigningKey};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make a key pair for signing firmware.
    Keygen {
        /// The private key (PKCS#8 DER, readable by its owner only). Keep it off the gateway.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The public key (64 hex digits).
        #[arg(long, value_name = "FILE")]
        public: PathBuf,
    },
    /// Put the images of one release into an unsigned bundle.
    // `--version` is the release's here.
    #[command(disable_version_flag = true)]
    Pack {
        /// The image linked for slot A: ELF, or raw bytes.
        #[arg(long, value_name = "FILE")]
        a: PathBuf,
        /// The image linked for slot B.
        #[arg(long, value_name = "FILE")]
        b: PathBuf,
        /// Number of the kind of board (docs/firmware.md).
        #[arg(long)]
        board: u16,
        /// Version, as in 1.2.3.
        #[arg(long, value_parser = version)]
        version: FirmwareVersion,
        /// Security version: raise it when older images must never run again.
        #[arg(long, default_value_t = 0)]
        security: u32,
        /// For this node only: its unique id, 16 hex digits.
        #[arg(long, value_name = "UID", value_parser = uid)]
        only: Option<Uid>,
        /// Let that node go back below the security version that it has confirmed.
        #[arg(long, requires = "only")]
        allow_downgrade: bool,
        /// The bundle.
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
    },
    /// Sign a bundle, in place.
    Sign {
        /// The bundle.
        bundle: PathBuf,
        /// The private key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Check a bundle as the gateway does before it sends it; 0 when it may be sent, 1 when not.
    Verify {
        /// The bundle.
        bundle: PathBuf,
        /// A public key that is trusted; may be given more than once.
        #[arg(long, value_name = "FILE", required = true)]
        public: Vec<PathBuf>,
    },
    /// Have the running gateway update a node; `gengfu status` shows how it stands.
    Send {
        /// The node's name in the configuration.
        node: Slug,
        /// The signed bundle.
        bundle: PathBuf,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Write the page of keys that a new node trusts, to be flashed beside its boot loader.
    Keypage {
        /// A public key; up to four.
        #[arg(long, value_name = "FILE", required = true)]
        public: Vec<PathBuf>,
        /// The page.
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
    },
    /// Write one slot of a bundle as it lies in flash, to be flashed by cable.
    Slot {
        /// The bundle.
        bundle: PathBuf,
        /// Which.
        #[arg(long, value_parser = slot)]
        slot: Slot,
        /// Bytes of a page of the flash: the header has one for itself.
        #[arg(long, default_value_t = 1024)]
        page: usize,
        /// The bytes of the slot.
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
    },
}

fn send(node: &Slug, bundle: &Path, socket: &SocketArgs) -> anyhow::Result<()> {
    // The gateway has another working folder.
    let bundle = fs::canonicalize(bundle).with_context(|| format!("find {}", bundle.display()))?;
    let query = Query::Update { node: node.clone(), bundle };
    match super::block_on(ask(&socket.path()?, &query))?? {
        Answer::Ordered => eprintln!("gengfu: {node} is being updated; `gengfu status` shows how it stands"),
        _ => bail!("the gateway answered something else; is it another version?"),
    }
    Ok(())
}

fn version(text: &str) -> Result<FirmwareVersion, String> {
    let numbers: Option<Vec<u16>> = text.split('.').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[major, minor, patch]) => Ok(FirmwareVersion { major, minor, patch }),
        _ => Err("expected three numbers up to 65535, as in 1.2.3".into()),
    }
}

fn uid(text: &str) -> Result<Uid, String> {
    Uid::parse(text).ok_or_else(|| "expected 16 hex digits, as `gengfu status` shows them".into())
}

fn slot(text: &str) -> Result<Slot, String> {
    match text {
        "a" | "A" => Ok(Slot::A),
        "b" | "B" => Ok(Slot::B),
        _ => Err("expected a or b".into()),
    }
}

pub(super) fn firmware(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Keygen { key, public } => keygen(key, public)?,
        Verb::Pack { a, b, board, version, security, only, allow_downgrade, out } => {
            let about = About {
                board: *board,
                version: *version,
                security: *security,
                only: *only,
                may_lower_security: *allow_downgrade,
            };
            pack(&about, [a, b], out)?;
        }
        Verb::Sign { bundle, key } => sign(bundle, key)?,
        Verb::Verify { bundle, public } => return verify(bundle, public),
        Verb::Send { node, bundle, socket } => send(node, bundle, socket)?,
        Verb::Keypage { public, out } => {
            let keys: Vec<[u8; 32]> = read_keys(public)?.into_iter().map(|key| key.0).collect();
            write(out, &key_page(&keys).context("a page has room for one to four keys")?)?;
        }
        Verb::Slot { bundle, slot, page, out } => {
            let bundle = read_bundle(bundle)?;
            let image = bundle.image(*slot);
            ensure!(*page >= image.header.len(), "--page {page} is less than the header's {}", image.header.len());
            let mut bytes = vec![0xff; *page];
            bytes[..image.header.len()].copy_from_slice(&image.header);
            bytes.extend(&image.bytes);
            write(out, &bytes)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn keygen(key: &Path, public: &Path) -> anyhow::Result<()> {
    let (signing, pkcs8) = SigningKey::generate()?;
    // Never over an existing key: what it has signed could not be followed by anything.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(key)
        .with_context(|| format!("make the private key {}; an existing file is not overwritten", key.display()))?;
    file.write_all(&pkcs8).and_then(|()| file.sync_all()).with_context(|| format!("write {}", key.display()))?;
    write(public, format!("{}\n", signing.public()).as_bytes())?;
    say(&format!("public key {}", signing.public()))
}

fn pack(about: &About, files: [&PathBuf; 2], out: &Path) -> anyhow::Result<()> {
    let [a, b] = files.map(|file| read_image(file));
    let (a, b) = (a?, b?);
    if let (Some(at_a), Some(at_b)) = (a.at, b.at) {
        ensure!(
            at_a < at_b,
            "both images are linked for the same place, or changed over: A at {at_a:#x}, B at {at_b:#x}"
        );
    }
    let bundle = Bundle::pack(about, [a.bytes, b.bytes])?;
    write(out, &bundle.to_bytes())?;
    let [a, b] = Slot::BOTH.map(|slot| bundle.image(slot).bytes.len());
    say(&format!("{}: version {}, A {a} bytes, B {b} bytes; not signed yet", out.display(), about.version))
}

fn sign(file: &Path, key: &Path) -> anyhow::Result<()> {
    let key = private_key(key)?;
    let mut bundle = read_bundle(file)?;
    bundle.sign(&key);
    replace(file, &bundle.to_bytes())?;
    say(&format!("{}: signed by {}", file.display(), key.public()))
}

pub(super) fn private_key(file: &Path) -> anyhow::Result<SigningKey> {
    let pkcs8 = fs::read(file).with_context(|| format!("read the private key {}", file.display()))?;
    SigningKey::from_pkcs8(&pkcs8).with_context(|| format!("read {}", file.display()))
}

/// Whole or not at all: the old file stays until the new one is there.
pub(super) fn replace(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let fresh = file.with_extension("signing");
    write(&fresh, bytes)?;
    fs::rename(&fresh, file).with_context(|| format!("replace {}", file.display()))
}

fn verify(file: &Path, public: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let bundle = read_bundle(file)?;
    let manifest = bundle.image(Slot::A).manifest;
    match bundle.verify(&read_keys(public)?) {
        Ok(_) => {
            let only = manifest.only.map_or_else(|| "every node".to_owned(), |uid| format!("node {uid}"));
            let lowers = if manifest.may_lower_security { ", may go back" } else { "" };
            say(&format!(
                "{}: good; version {}, board {}, security {}, for {only}{lowers}",
                file.display(),
                manifest.version,
                manifest.board,
                manifest.security,
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            say(&format!("{}: {error}", file.display()))?;
            Ok(ExitCode::from(super::NO))
        }
    }
}

pub(super) fn read_keys(files: &[PathBuf]) -> anyhow::Result<Vec<PublicKey>> {
    files.iter().map(|file| Ok(PublicKey::read(file)?)).collect()
}

fn read_bundle(file: &Path) -> anyhow::Result<Bundle> {
    let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    Bundle::from_bytes(&bytes).with_context(|| format!("read {}", file.display()))
}

/// An image as it is flashed, and where it is linked for, if its file says.
struct Flat {
    at: Option<u32>,
    bytes: Vec<u8>,
}

/// What a programmer would write: the loaded parts of an ELF file in the order of their addresses, gaps filled with ones.
fn read_image(file: &Path) -> anyhow::Result<Flat> {
    let data = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    if !data.starts_with(b"\x7fELF") {
        return Ok(Flat { at: None, bytes: data });
    }
    let whole = || -> anyhow::Result<Flat> {
        let header = FileHeader32::<Endianness>::parse(&*data)?;
        let endian = header.endian()?;
        let mut parts: Vec<(u32, &[u8])> = Vec::new();
        for segment in header.program_headers(endian, &*data)? {
            let bytes = segment.data(endian, &*data).ok().context("a segment is outside of the file")?;
            if segment.p_type(endian) == PT_LOAD && !bytes.is_empty() {
                parts.push((segment.p_paddr(endian), bytes));
            }
        }
        parts.sort_by_key(|(at, _)| *at);
        let Some((first, _)) = parts.first().copied() else { bail!("it has nothing to load") };
        let mut flat = Vec::new();
        for (at, bytes) in parts {
            let offset = (at - first) as usize;
            // A wrong address would ask for gigabytes.
            ensure!(offset >= flat.len() && offset < 1 << 20, "its parts overlap or are far apart, at {at:#x}");
            flat.resize(offset, 0xff);
            flat.extend(bytes);
        }
        Ok(Flat { at: Some(first), bytes: flat })
    };
    whole().with_context(|| format!("read the ELF image {}", file.display()))
}

pub(super) fn write(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(file, bytes).with_context(|| format!("write {}", file.display()))
}

pub(super) fn say(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
