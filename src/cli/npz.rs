//! Members of `.npz` files: zip archives of `.npy` files.
//!
//! # Failure
//!
//! The archive's own checksum of a member is compared when the member ends, so damage is an error
//! of the read that meets it.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use super::error::Error;

/// What a zip archive starts with; an empty one with the second.
const MAGICS: [&[u8; 4]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];

/// An open `.npz` file.
pub(crate) struct Npz {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
}

impl Npz {
    /// Whether a file that starts with `start` is a zip archive.
    pub(crate) fn is_one(start: &[u8]) -> bool {
        MAGICS.iter().any(|magic| start.starts_with(*magic))
    }

    /// Reads the list of members.
    pub(crate) fn open(path: &Path, file: File) -> Result<Self, Error> {
        let archive = ZipArchive::new(BufReader::new(file)).map_err(|why| {
            Error::Refused(format!("{} cannot be read as .npz: {why}", path.display()))
        })?;
        Ok(Self { path: path.to_owned(), archive })
    }

    /// The members that are arrays, without their `.npy`, in the order of the archive.
    pub(crate) fn members(&self) -> Vec<String> {
        // A name that cannot be decoded cannot be asked for either.
        let names = self.archive.file_names().filter_map(Result::ok);
        names.filter_map(|name| name.strip_suffix(".npy").map(str::to_owned)).collect()
    }

    /// Reads a member; gives its bytes and how many there are.
    pub(crate) fn member(&mut self, name: &str) -> Result<(impl Read + '_, u64), Error> {
        let members = self.members();
        let name = name.strip_suffix(".npy").unwrap_or(name);
        let path = self.path.display().to_string();
        if !members.iter().any(|member| member == name) {
            let known = if members.is_empty() { "none".to_owned() } else { members.join(", ") };
            return Err(Error::Refused(format!(
                "{path} has no member `{name}`; its arrays: {known}"
            )));
        }
        let file = self.archive.by_name(&format!("{name}.npy"));
        let file = file.map_err(|why| {
            Error::Refused(format!("member `{name}` of {path} cannot be read: {why}"))
        })?;
        let bytes = file.size();
        Ok((file, bytes))
    }
}
