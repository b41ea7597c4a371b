//! Writes the definitions of our kinds to `crds/manifests/`.

use std::{fs, io, path::Path};

use weft_crds::{Kind, manifest};

fn main() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    fs::create_dir_all(&folder)?;
    for kind in Kind::ALL {
        let (file, text) = manifest(kind);
        fs::write(folder.join(file), text)?;
    }
    Ok(())
}
