//! Hands the linker the memory budget and the list of interrupts. Only for the microcontroller; on the host only the library is built.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return Ok(());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?);
    // None of them is called memory.x: the linker looks for that name beside this file before it looks into the folder that it is given.
    // For which place the image is linked: the beginning of flash, or one of the slots behind the boot loader.
    println!("cargo:rerun-if-env-changed=GENGFU_SLOT");
    let memory = match env::var("GENGFU_SLOT").as_deref() {
        Err(_) => "memory.plain.x",
        Ok("a") => "memory.a.x",
        Ok("b") => "memory.b.x",
        Ok(other) => return Err(io::Error::other(format!("GENGFU_SLOT={other}: expected a or b"))),
    };
    for (script, name) in [(memory, "memory.x"), ("device.x", "device.x")] {
        fs::copy(script, out.join(name))?;
        println!("cargo:rerun-if-changed={script}");
    }
    println!("cargo:rustc-link-search={}", out.display());
    for argument in ["-Tlink.x", "--nmagic"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    Ok(())
}
