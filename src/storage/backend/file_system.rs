//! On what kind of file system a store lies: locks and shared memory do not reach over a network.
//!
//! ```text
//! statfs(2) -> magic number -> FileSystem: local, or a network one and its name
//! ```
//!
//! # Invariants
//!
//! 1. Only file systems that are known to be shared between machines are refused; what is not known
//!    is taken for a local one, also what lies behind FUSE.

/// A kind of file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileSystem {
    /// One machine writes to it, as far as is known.
    Local,
    /// Several machines may write to it; its name.
    Network(&'static str),
}

/// The numbers are those of `linux/magic.h` and of the file systems' own sources, for which the
/// kernel's header has none.
const NETWORK: [(u32, &str); 10] = [
    (0x0000_6969, "NFS"),
    (0x0000_517B, "SMB"),
    (0xFF53_4D42, "SMB (CIFS)"),
    (0xFE53_4D42, "SMB"),
    (0x0102_1997, "9P"),
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x00C3_6400, "Ceph"),
    (0x0BD0_0BD0, "Lustre"),
    (0x4750_4653, "GPFS"),
];

impl FileSystem {
    /// The kind that `statfs(2)` calls `magic`, of which 32 bits count.
    #[must_use]
    pub fn of_magic(magic: u32) -> Self {
        let network = NETWORK.iter().find(|(number, _)| *number == magic);
        network.map_or(Self::Local, |(_, name)| Self::Network(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_are_known_by_their_numbers() {
        for (magic, name) in NETWORK {
            assert_eq!(FileSystem::of_magic(magic), FileSystem::Network(name));
        }
        assert_eq!(FileSystem::of_magic(0x6969), FileSystem::Network("NFS"));
    }

    #[test]
    fn local_file_systems_fuse_and_unknown_ones_are_taken_for_local() {
        let (ext4, xfs, btrfs, tmpfs) = (0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994);
        let (overlay, zfs, fuse) = (0x794C_7630, 0x2FC1_2FC1, 0x6573_5546);
        for magic in [ext4, xfs, btrfs, tmpfs, overlay, zfs, fuse, 0, u32::MAX] {
            assert_eq!(FileSystem::of_magic(magic), FileSystem::Local, "{magic:08x}");
        }
    }
}
