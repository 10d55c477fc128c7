//! PURE. The Merkle tree over the audit log (RFC 6962 §2.1, SHA-256). `ct-merkle` judges proofs; it builds trees in memory only,
//! so growing one and making proofs of millions of leaves is done here, from a few hashes: a [`Frontier`] is all that appending
//! needs, and a hash a [`TILE_LEAVES`] leaves is all that a store has to keep for proofs. Both are held to `ct-merkle` in the
//! tests.

use std::collections::BTreeMap;

use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use sha2::{Digest, Sha256};

/// A SHA-256.
pub type Hash = [u8; 32];

/// How many leaves one stored hash stands for: 2⁸. A proof then reads two tiles of leaves and a hash for each other tile.
pub const TILE_LEAVES: u64 = 1 << TILE_LEVEL;
const TILE_LEVEL: u32 = 8;
/// More leaves than any log will have; below what positions in rows and in `ct-merkle` can hold.
const LEAVES_LIMIT: u64 = 1 << 48;
/// A path has a hash a level, and no tree is higher.
pub const PATH_LIMIT_HASHES: usize = 64;

/// A leaf's hash.
pub fn leaf_hash(data: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(data).finalize().into()
}

fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// The root of a tree without leaves: the hash of nothing.
fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// The roots of the perfect subtrees that a tree of some size is made of, largest first: enough to append, and to tell the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Hash>,
}

/// A full tile: which, and its root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Counted from 0; it covers the leaves `index * TILE_LEAVES` on.
    pub index: u64,
    /// The root of its leaves.
    pub root: Hash,
}

impl Frontier {
    /// How many leaves there are.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf; gives the tile that it fills, if it does.
    pub fn push(&mut self, data: &[u8]) -> Option<Tile> {
        let (mut hash, mut tile) = (leaf_hash(data), None);
        let merges = self.size.trailing_ones();
        for level in 1..=merges {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
            if level == TILE_LEVEL {
                tile = Some(Tile { index: self.size / TILE_LEAVES, root: hash });
            }
        }
        self.peaks.push(hash);
        self.size = self.size.saturating_add(1);
        tile
    }

    /// The root over all leaves.
    pub fn root(&self) -> Hash {
        let mut peaks = self.peaks.iter().rev();
        let Some(last) = peaks.next() else { return empty_root() };
        peaks.fold(*last, |right, left| node_hash(left, &right))
    }

    /// For a row.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.peaks.concat()
    }

    /// Back from a row; `None` if these bytes are no frontier of so many leaves.
    pub fn from_bytes(size: u64, bytes: &[u8]) -> Option<Self> {
        let peaks: Vec<Hash> = bytes.chunks(32).map(Hash::try_from).collect::<Result<_, _>>().ok()?;
        let fits = size < LEAVES_LIMIT && u32::try_from(peaks.len()).ok()? == size.count_ones();
        fits.then_some(Self { size, peaks })
    }
}

/// What a store hands over for proofs of a tree: the root of each full tile, and the leaves of the tiles that a proof has to look
/// into.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Leaves in the tree.
    pub size: u64,
    /// Roots of the full tiles, in order.
    pub tiles: Vec<Hash>,
    /// Leaf hashes of some tiles, by the tile's index.
    pub leaves: BTreeMap<u64, Vec<Hash>>,
}

impl Parts {
    /// Which tiles' leaves a proof about the leaf or boundary at `position` needs, in a tree of `size`.
    pub fn tiles_needed(position: u64, size: u64) -> Vec<u64> {
        let mut needed = vec![position / TILE_LEAVES];
        let last = size / TILE_LEAVES;
        if !size.is_multiple_of(TILE_LEAVES) && !needed.contains(&last) {
            needed.push(last);
        }
        needed
    }

    /// The path that proves that the leaf at `position` is in the tree: `PATH(m, D[n])`, RFC 6962 §2.1.1.
    pub fn inclusion(&self, position: u64) -> Option<Vec<Hash>> {
        if position >= self.size {
            return None;
        }
        let (mut from, mut to, mut path) = (0, self.size, Vec::new());
        // From the root down; a verifier goes up, so it is turned round at the end.
        while to - from > 1 {
            let middle = from + split(to - from);
            let sibling;
            if position < middle {
                sibling = self.range(middle, to)?;
                to = middle;
            } else {
                sibling = self.range(from, middle)?;
                from = middle;
            }
            path.push(sibling);
        }
        path.reverse();
        Some(path)
    }

    /// The path that proves that the first `old` leaves are those of an earlier tree: `PROOF(m, D[n])`, RFC 6962 §2.1.2.
    pub fn consistency(&self, old: u64) -> Option<Vec<Hash>> {
        if old == 0 || old > self.size {
            return None;
        }
        let (mut from, mut to, mut path) = (0, self.size, Vec::new());
        // `old` counts from the beginning of the whole tree throughout.
        while old != to {
            let middle = from + split(to - from);
            if old <= middle {
                path.push(self.range(middle, to)?);
                to = middle;
            } else {
                path.push(self.range(from, middle)?);
                from = middle;
            }
        }
        // A verifier that knows the old root needs no hash of a subtree that is the whole old tree.
        if from != 0 {
            path.push(self.range(from, to)?);
        }
        path.reverse();
        Some(path)
    }

    /// The root over the leaves `from..to`, which is a subtree of the whole.
    fn range(&self, from: u64, to: u64) -> Option<Hash> {
        let n = to.checked_sub(from)?;
        let (tile, within) = (from / TILE_LEAVES, from % TILE_LEAVES);
        if n == TILE_LEAVES && within == 0 {
            return self.tiles.get(usize::try_from(tile).ok()?).copied();
        }
        match n {
            0 => None,
            1 => self.leaves.get(&tile)?.get(usize::try_from(within).ok()?).copied(),
            _ => {
                let middle = from + split(n);
                Some(node_hash(&self.range(from, middle)?, &self.range(middle, to)?))
            }
        }
    }
}

/// The largest power of two below `n` (`n` ≥ 2): where RFC 6962 splits a tree.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// Whether `path` proves that `leaf` stands at `position` of the tree with this `size` and `root`.
pub fn includes(root: &Hash, size: u64, position: u64, leaf: &[u8], path: &[Hash]) -> bool {
    if size > LEAVES_LIMIT || position >= size || path.len() > PATH_LIMIT_HASHES {
        return false;
    }
    let Ok(proof) = InclusionProof::<Sha256>::try_from_bytes(path.concat()) else { return false };
    RootHash::<Sha256>::new((*root).into(), size).verify_inclusion(&leaf, position, &proof).is_ok()
}

/// Whether `path` proves that the tree `(old_root, old_size)` is the beginning of the tree `(root, size)`.
pub fn consistent(old_root: &Hash, old_size: u64, root: &Hash, size: u64, path: &[Hash]) -> bool {
    if old_size == 0 || old_size > size || size > LEAVES_LIMIT || path.len() > PATH_LIMIT_HASHES {
        return false;
    }
    let Ok(proof) = ConsistencyProof::<Sha256>::try_from_bytes(path.concat()) else { return false };
    let old = RootHash::<Sha256>::new((*old_root).into(), old_size);
    RootHash::<Sha256>::new((*root).into(), size).verify_consistency(&old, &proof).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ct_merkle::mem_backed_tree::MemoryBackedTree;
    use proptest::prelude::*;

    /// The leaves and roots of the reference tree that Certificate Transparency's own programs are tested with: sizes 0 to 8.
    const CT_LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    const CT_ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    struct Grown {
        frontier: Frontier,
        parts: Parts,
        reference: MemoryBackedTree<Sha256, Vec<u8>>,
    }

    fn grown(size: u64) -> Grown {
        let mut g = Grown { frontier: Frontier::default(), parts: Parts::default(), reference: MemoryBackedTree::new() };
        for i in 0..size {
            let data = i.to_be_bytes();
            g.parts.leaves.entry(i / TILE_LEAVES).or_default().push(leaf_hash(&data));
            if let Some(tile) = g.frontier.push(&data) {
                assert_eq!(tile.index, u64::try_from(g.parts.tiles.len()).unwrap());
                g.parts.tiles.push(tile.root);
            }
            g.reference.push(data.to_vec());
        }
        g.parts.size = size;
        g
    }

    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let mut frontier = Frontier::default();
        assert_eq!(hex::encode(frontier.root()), CT_ROOTS[0]);
        for (leaf, root) in CT_LEAVES.iter().zip(&CT_ROOTS[1..]) {
            frontier.push(&hex::decode(leaf).unwrap());
            assert_eq!(hex::encode(frontier.root()), *root);
        }
        // The inclusion proof of leaf 0 of 8, and the consistency proof of 6 to 8, from the same tests.
        let path =
            |hashes: &[&str]| -> Vec<Hash> { hashes.iter().map(|h| hex::decode(h).unwrap().try_into().unwrap()).collect() };
        let root = |n: usize| -> Hash { hex::decode(CT_ROOTS[n]).unwrap().try_into().unwrap() };
        let inclusion = path(&[
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ]);
        assert!(includes(&root(8), 8, 0, &[], &inclusion));
        let consistency = path(&[
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ]);
        assert!(consistent(&root(6), 6, &root(8), 8, &consistency));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn proofs_convince_the_judge_and_only_of_what_is_so(size in 1u64..1_100, at in any::<u64>(), old in any::<u64>()) {
            let g = grown(size);
            let root = g.frontier.root();
            let reference = g.reference.root();
            prop_assert_eq!(root.as_slice(), reference.as_bytes().as_slice());
            prop_assert_eq!(Frontier::from_bytes(size, &g.frontier.to_bytes()), Some(g.frontier.clone()));
            let other_size = Frontier::from_bytes(size + 1, &g.frontier.to_bytes());
            prop_assert_eq!(other_size.is_some(), (size + 1).count_ones() == size.count_ones());

            let at = at % size;
            let mut lean = g.parts.clone();
            let needed = Parts::tiles_needed(at, size);
            lean.leaves.retain(|tile, _| needed.contains(tile));
            let path = lean.inclusion(at).unwrap();
            let reference = g.reference.prove_inclusion(usize::try_from(at).unwrap());
            prop_assert_eq!(path.concat(), reference.as_bytes());
            prop_assert!(includes(&root, size, at, &at.to_be_bytes(), &path));
            prop_assert!(!includes(&root, size, at, &(at + 1).to_be_bytes(), &path));
            prop_assert!(!includes(&root, size, (at + 1) % (size + 1), &at.to_be_bytes(), &path));
            prop_assert_eq!(lean.inclusion(size), None);

            let old = 1 + old % size;
            let mut lean = g.parts.clone();
            let needed = Parts::tiles_needed(old, size);
            lean.leaves.retain(|tile, _| needed.contains(tile));
            let path = lean.consistency(old).unwrap();
            let reference = g.reference.prove_consistency(usize::try_from(size - old).unwrap());
            prop_assert_eq!(path.concat(), reference.as_bytes());
            let old_root = grown(old).frontier.root();
            prop_assert!(consistent(&old_root, old, &root, size, &path));
            let other = leaf_hash(b"other");
            prop_assert!(!consistent(&other, old, &root, size, &path));
            prop_assert!(!consistent(&old_root, old, &other, size, &path));
        }
    }

    #[test]
    fn absurd_sizes_are_refused_and_never_panic() {
        let h = leaf_hash(b"x");
        for (size, at) in [(0, 0), (1, 1), (u64::MAX, 0), (u64::MAX, u64::MAX - 1)] {
            assert!(!includes(&h, size, at, b"x", &[]), "{size} {at}");
        }
        assert!(!consistent(&h, 0, &h, 1, &[]) && !consistent(&h, 2, &h, 1, &[]) && !consistent(&h, 1, &h, u64::MAX, &[]));
        assert!(includes(&h, 1, 0, b"x", &[]) && !includes(&h, 1, 0, b"x", &[h]) && !includes(&h, 1, 0, b"y", &[]));
    }
}
