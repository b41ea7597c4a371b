//! A keyed table that is cheap to copy: the index edits its own copy while published snapshots keep theirs.
//!
//! Entries are spread over shards that copies share; an edit copies one shard only. So a snapshot costs a fixed number
//! of reference counts, and a change costs a small part of its table, whatever the size of the mesh.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
    sync::Arc,
};

const SHARDS: usize = 64;

/// A map from `K` to `V` whose copies share what they have in common.
#[derive(Clone, Debug)]
pub struct Store<K, V> {
    shards: Vec<Arc<HashMap<K, V>>>,
}

impl<K, V> Default for Store<K, V> {
    fn default() -> Self {
        let empty = Arc::default();
        Self { shards: vec![empty; SHARDS] }
    }
}

impl<K: Hash + Eq, V: PartialEq> PartialEq for Store<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.shards.iter().zip(&other.shards).all(|(a, b)| Arc::ptr_eq(a, b) || a == b)
    }
}

/// The shard of a key: the same in every copy and every process, so that equal contents have equal shards.
fn shard<Q: Hash + ?Sized>(key: &Q) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
    usize::try_from(hash % SHARDS as u64).unwrap_or(0)
}

impl<K: Hash + Eq, V> Store<K, V> {
    /// The value of a key.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shards[shard(key)].get(key)
    }

    /// Whether a key is there.
    pub fn contains<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Every entry, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// Every value, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.is_empty())
    }
}

impl<K: Hash + Eq + Clone, V: Clone + PartialEq> Store<K, V> {
    /// Sets a key's value; says whether that changed anything. An equal value keeps the one that is there, and with it
    /// whatever copies share.
    pub fn set(&mut self, key: K, value: V) -> bool {
        let shard = shard(&key);
        if self.shards[shard].get(&key) == Some(&value) {
            return false;
        }
        Arc::make_mut(&mut self.shards[shard]).insert(key, value);
        true
    }

    /// Removes a key; answers the value that it had.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let shard = shard(key);
        if !self.shards[shard].contains_key(key) {
            return None;
        }
        Arc::make_mut(&mut self.shards[shard]).remove(key)
    }

    /// Edits a key's value, starting from the default, and removes what is the default again afterwards.
    pub fn edit(&mut self, key: &K, edit: impl FnOnce(&mut V))
    where
        V: Default,
    {
        let entries = Arc::make_mut(&mut self.shards[shard(key)]);
        let value = entries.entry(key.clone()).or_default();
        edit(value);
        if *value == V::default() {
            entries.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_independent_and_share_what_is_equal() {
        let mut store = Store::default();
        for key in 0..1000u32 {
            assert!(store.set(key, key * 2));
        }
        let copy = store.clone();
        assert!(!store.set(5, 10), "an equal value changes nothing");
        assert_eq!(store, copy);
        assert!(store.set(5, 11));
        assert_eq!((store.get(&5), copy.get(&5)), (Some(&11), Some(&10)));
        assert_ne!(store, copy);
        let shared = store.shards.iter().zip(&copy.shards).filter(|(a, b)| Arc::ptr_eq(a, b));
        assert_eq!(shared.count(), SHARDS - 1);
        assert_eq!(store.remove(&7), Some(14));
        assert_eq!((store.remove(&7), store.len(), copy.len()), (None, 999, 1000));
    }

    #[test]
    fn equality_does_not_depend_on_the_order_of_edits() {
        let (mut a, mut b) = (Store::default(), Store::default());
        for key in 0..200u32 {
            a.set(key, ());
            b.set(199 - key, ());
        }
        assert_eq!(a, b);
    }

    #[test]
    fn an_edit_back_to_the_default_removes_the_entry() {
        let mut store: Store<&str, Vec<u8>> = Store::default();
        store.edit(&"a", |value| value.push(1));
        assert_eq!(store.get("a"), Some(&vec![1]));
        store.edit(&"a", Vec::clear);
        assert!(store.is_empty());
    }
}
