//! How the command line program is linked: as small as the linker makes it.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").unwrap_or_default();
    // Rust's own linker is used there; that of another target may not know the options.
    if target != "x86_64-unknown-linux-gnu" {
        return;
    }
    // The many functions of generic code that come out alike are one.
    println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    if knows_packed_relocations() {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Whether the C library of this machine starts programs whose relocations are packed: from 2.36 on.
fn knows_packed_relocations() -> bool {
    let Ok(found) = Command::new("getconf").arg("GNU_LIBC_VERSION").output() else { return false };
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    let version = text.trim().strip_prefix("glibc ").and_then(|version| version.split_once('.'));
    version.is_some_and(|(major, minor)| major.parse() == Ok(2) && minor.parse().is_ok_and(|minor: u32| minor >= 36))
}
