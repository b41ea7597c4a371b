//! How the program is linked.

use std::{env, fmt::Write as _, fs, io, path::Path};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=layout.txt");
    let is = |name, value| env::var(name).is_ok_and(|is| is.split(',').any(|is| is == value));
    // The program relocates itself when it starts: 24 bytes for each of 36,000 addresses would be read into memory for
    // that, some 10 KiB are read in this form. A dynamic loader would have to be as new as 2022.
    if is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && is("CARGO_CFG_TARGET_ARCH", "x86_64")
        && is("CARGO_CFG_TARGET_FEATURE", "crt-static")
    {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        // mold and gold refuse such a script; a program that they link has another order, no other functions.
        println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
        let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
        if ["mold", "gold"].iter().any(|linker| flags.contains(linker)) {
            return Ok(());
        }
        let script = env::var("OUT_DIR").map_err(io::Error::other)? + "/layout.ld";
        fs::write(&script, layout(&fs::read_to_string(Path::new("layout.txt"))?)?)?;
        println!("cargo::rustc-link-arg-bins=-T");
        println!("cargo::rustc-link-arg-bins={script}");
    }
    Ok(())
}

/// What starts and serves stands side by side, before the rest: the kernel maps 64 KiB around each page that is touched.
/// A name that the program does not have costs nothing, a function that is not named stands with the rest.
fn layout(names: &str) -> io::Result<String> {
    let mut script = String::from("SECTIONS {\n  .text.start : {\n");
    for name in names.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$' | '*');
        if !name.chars().all(plain) {
            return Err(io::Error::other(format!("layout.txt: {name:?} is not a symbol")));
        }
        let _ = writeln!(script, "    *(.text.{name} .text.unlikely.{name})");
    }
    script.push_str("  }\n}\nINSERT BEFORE .text;\n");
    Ok(script)
}
