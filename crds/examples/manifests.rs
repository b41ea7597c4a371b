//! Writes the definitions of our kinds to `crds/manifests/` and, as templates, to `charts/weft/templates/crds/`.

use std::{fs, io, path::Path};

use weft_crds::{Kind, chart_template, manifest};

fn main() -> io::Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    write(&here.join("manifests"), manifest)?;
    write(&here.join("../charts/weft/templates/crds"), chart_template)
}

fn write(folder: &Path, text_of: impl Fn(Kind) -> (String, String)) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for kind in Kind::ALL {
        let (file, text) = text_of(kind);
        fs::write(folder.join(file), text)?;
    }
    Ok(())
}
