//! Tells the program when it was built: an unset clock cannot be earlier than that. `SOURCE_DATE_EPOCH` (reproducible-builds.org) decides
//! where it is set, so that a release is the same bytes whenever it is built again.

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=build.rs");
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.trim().parse::<u64>().ok());
    #[expect(clippy::disallowed_methods, reason = "the build itself is what is dated")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_secs());
    println!("cargo::rustc-env=GENGFU_BUILT_AT_S={}", given.unwrap_or(now));
}
