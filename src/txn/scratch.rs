//! Bytes that wait on the disk and that nobody finds there after the process: an unnamed file.
//!
//! ```text
//! file     | place A | free | place B ..... |       places are whole pages, reused when given back
//! memory             map(B) -> &[u8]
//! ```
//!
//! # Invariants
//!
//! 1. The file has no name, so it is gone with the process, however that ends.
//! 2. A place is given out again only when it and every mapping of it was dropped: mapped bytes
//!    never change.
//!
//! # Failure
//!
//! A write that fails gives its place back; the file stays usable. Bytes that the disk cannot give
//! back are an error when they are mapped, because all of them are read then.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::sync::Mutex;
use crate::units::{PAGE_BYTES, PAGE_LEN, PageRange, PageSet};
use crate::vm::{Access, Advice, Content, MapError, Mapping, Run, VmaBudget, populate};

/// Bytes that are gathered before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// An unnamed file for bytes of any length.
#[derive(Clone)]
pub(crate) struct ScratchFile(Arc<Inner>);

struct Inner {
    file: File,
    space: Mutex<Space>,
}

/// Which pages are free below the end, and where the end is.
#[derive(Default)]
struct Space {
    free: PageSet,
    end: u64,
}

/// Where some bytes lie. Dropping it frees the place.
#[derive(Clone)]
pub(crate) struct ScratchPlace(Arc<Place>);

struct Place {
    inner: Arc<Inner>,
    pages: PageRange,
    len: usize,
}

/// Bytes of a scratch file as memory.
pub struct MappedScratch {
    mapping: Option<Mapping>,
    place: Arc<Place>,
}

impl ScratchFile {
    /// Makes one on the file system of `directory`.
    pub(crate) fn new(directory: &Path) -> io::Result<Self> {
        let file = match open_unnamed(directory) {
            // Some file systems have no unnamed files; there it loses its name at once.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => create(directory)?,
            opened => opened?,
        };
        Ok(Self(Arc::new(Inner { file, space: Mutex::default() })))
    }

    /// Writes what `fill` writes, which is `len` bytes or fewer.
    pub(crate) fn write(
        &self,
        len: u64,
        fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<ScratchPlace> {
        let pages = self.0.space.lock().take(len.div_ceil(PAGE_BYTES));
        let mut place = Place { inner: Arc::clone(&self.0), pages, len: 0 };
        let mut writer = Writer { place: &mut place, gathered: Vec::new() };
        fill(&mut writer)?;
        writer.write_out()?;
        place.fill_page()?;
        Ok(ScratchPlace(Arc::new(place)))
    }

    /// Pages that were given out at least once.
    #[cfg(test)]
    fn pages(&self) -> u64 {
        self.0.space.lock().end
    }
}

impl ScratchPlace {
    /// The bytes, as memory into which they were read.
    pub(crate) fn map(&self) -> Result<MappedScratch, MapError> {
        let place = Arc::clone(&self.0);
        let used = PageRange::covering(0, place.len as u64);
        if used.is_empty() {
            return Ok(MappedScratch { mapping: None, place });
        }
        let budget = VmaBudget::process();
        let mut mapping = Mapping::new(used.count(), Access::ReadOnly, Advice::Blocks, budget)?;
        let offset_bytes = place.pages.start_byte();
        let content = Content::File { file: place.inner.file.as_fd(), offset_bytes };
        mapping.place(&[Run { at: used, content }])?;
        populate(mapping.bytes(used))?;
        Ok(MappedScratch { mapping: Some(mapping), place })
    }
}

impl Deref for MappedScratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let len = self.place.len;
        let pages = PageRange::covering(0, len as u64);
        self.mapping.as_ref().map_or(&[], |mapping| &mapping.bytes(pages)[..len])
    }
}

impl Place {
    /// Makes the last page whole: only whole pages are mapped.
    fn fill_page(&self) -> io::Result<()> {
        let missing = self.len.next_multiple_of(PAGE_LEN) - self.len;
        let at = self.pages.start_byte() + self.len as u64;
        self.inner.file.write_all_at(&[0; PAGE_LEN][..missing], at)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.pages.is_empty() {
            self.inner.space.lock().free.insert(self.pages);
        }
    }
}

impl Space {
    /// The first free pages that are enough, else new ones at the end.
    fn take(&mut self, count: u64) -> PageRange {
        let found = self.free.iter().find(|range| range.count() >= count);
        match found {
            Some(range) => {
                let pages = PageRange::at(range.start, count);
                self.free.remove(pages);
                pages
            }
            None => {
                let pages = PageRange::at(self.end, count);
                self.end += count;
                pages
            }
        }
    }
}

/// Writes into a place, in large pieces.
struct Writer<'a> {
    place: &'a mut Place,
    gathered: Vec<u8>,
}

impl Writer<'_> {
    fn write_out(&mut self) -> io::Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        self.append(&gathered)
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.place.len + bytes.len();
        if end as u64 > self.place.pages.len_bytes() {
            return Err(io::Error::other("the value is longer than it said"));
        }
        let at = self.place.pages.start_byte() + self.place.len as u64;
        self.place.inner.file.write_all_at(bytes, at)?;
        self.place.len = end;
        Ok(())
    }
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() >= WRITE_BYTES {
            self.write_out()?;
            self.append(bytes)?;
        } else {
            self.gathered.extend_from_slice(bytes);
            if self.gathered.len() >= WRITE_BYTES {
                self.write_out()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_out()
    }
}

fn open_unnamed(directory: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(directory)
}

fn create(directory: &Path) -> io::Result<File> {
    let path = directory.join(format!(".scratch-{}", uuid::Uuid::new_v4()));
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &ScratchFile, bytes: &[u8]) -> ScratchPlace {
        file.write(bytes.len() as u64, |to| to.write_all(bytes)).unwrap()
    }

    #[test]
    fn what_was_written_is_read_back_and_space_is_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = ScratchFile::new(dir.path()).unwrap();
        let lens = [0, 1, 4095, 4096, 4097, 300_000, 1 << 20];
        for round in 0_u8..3 {
            let content = |len: usize| -> Vec<u8> {
                (0..=u8::MAX).cycle().map(|i| i ^ round).take(len).collect()
            };
            let places: Vec<_> = lens.iter().map(|&len| write(&file, &content(len))).collect();
            for (place, &len) in places.iter().zip(&lens) {
                assert!(place.map().unwrap()[..] == content(len), "{len} bytes");
            }
        }
        let once: u64 = lens.iter().map(|&len| (len as u64).div_ceil(PAGE_BYTES)).sum();
        assert_eq!(file.pages(), once);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file has no name");
    }

    #[test]
    fn a_place_that_is_mapped_is_not_given_out_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = ScratchFile::new(dir.path()).unwrap();
        let mapped = write(&file, &[7; 5000]).map().unwrap();
        let other = write(&file, &[9; 5000]);
        assert_eq!(mapped[..], [7; 5000]);
        drop(mapped);
        let third = write(&file, &[1; 5000]);
        assert_eq!(file.pages(), 4);
        assert_eq!((other.map().unwrap()[0], third.map().unwrap()[4999]), (9, 1));
    }

    #[test]
    fn what_is_longer_than_announced_is_refused_and_its_place_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let file = ScratchFile::new(dir.path()).unwrap();
        assert!(file.write(10, |to| to.write_all(&[0; 5000])).is_err());
        assert_eq!(write(&file, &[3; 10]).map().unwrap()[..], [3; 10]);
        assert_eq!(file.pages(), 1);
    }
}
