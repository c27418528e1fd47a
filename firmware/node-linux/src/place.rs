//! A bus address that outlives the process (W34): one number in a file.
//!
//! Owns reading it at start and replacing it whole. Refuses to guess: a file that holds anything else is an error, not "no address".

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use gengfu_node::BusAddress;

/// The address in `file`; `None` when there is no file yet.
///
/// # Errors
/// When it cannot be read, or holds no address.
pub(crate) fn read(file: &Path) -> io::Result<Option<BusAddress>> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let address = text.trim().parse().ok().and_then(BusAddress::new);
    address.map(Some).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it holds no number from 1 to 247"))
}

/// Replaces it: after a power cut the file holds the old address or the new one.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn write(file: &Path, address: BusAddress) -> io::Result<()> {
    let fresh = file.with_extension("new");
    let mut out = File::create(&fresh)?;
    writeln!(out, "{}", address.get())?;
    out.sync_all()?;
    fs::rename(&fresh, file)?;
    let folder = file.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w34_an_address_is_kept_and_what_is_none_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("address");
        assert_eq!(read(&file).unwrap(), None);
        for address in [1, 247] {
            write(&file, BusAddress::new(address).unwrap()).unwrap();
            assert_eq!(read(&file).unwrap(), BusAddress::new(address));
        }
        for wrong in ["", "0", "248", "seven", "1 2"] {
            fs::write(&file, wrong).unwrap();
            assert_eq!(read(&file).unwrap_err().kind(), io::ErrorKind::InvalidData, "{wrong:?}");
        }
    }
}
