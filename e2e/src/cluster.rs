//! A real Kubernetes on this machine: one node in namespaces of its own, without Docker and without a registry of images.
//!
//! `up` builds what the cache lacks, starts the node and waits until it is ready; `down` ends exactly that. Fed by the
//! command line of `weft-cluster`; the tests of level 5 read the exports. Invariant: all that a cluster has is in its
//! [`folder::Folder`], its process 1 and one forwarder; nothing else of the machine is touched.

pub mod access;
pub mod addons;
pub mod build;
pub mod certificates;
pub mod check;
pub mod components;
pub mod config;
pub mod control;
pub mod control_groups;
pub mod down;
pub mod folder;
pub mod go;
pub mod handle;
pub mod images;
pub mod init;
pub mod oci;
pub mod packages;
pub mod status;
pub mod test_images;
pub mod up;

/// Progress goes to standard error: standard output is for what a shell evaluates.
#[allow(clippy::print_stderr)]
pub fn say(line: &str) {
    eprintln!("{line}");
}
