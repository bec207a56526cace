//! Memory of one column of a cell: on the heap, or in place in a file that is mapped.
//!
//! Always true: what is mapped is never written. A cell of mapped columns is full, so whoever has a
//! row to add, or dead rows to drop, puts a cell on the heap in its place.
//!
//! # Mapped files
//! The bytes of a map are those of the file, now and later. So whoever maps a file promises that
//! nobody writes into it or cuts it while it is mapped: it may be deleted, or another file be
//! renamed to its name, as both leave the mapped one whole. A file that is cut ends the process at
//! the next look behind its end (SIGBUS); one that is written into makes answers wrong. No bytes,
//! whatever they are, lead outside the map.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fs::File;
use std::io;
use std::mem::{align_of, size_of};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

use super::cell::Meta;
use crate::kernel::{CodeLine, RowLine};

/// Types of which any bits are a value.
///
/// # Safety
/// They must be so, must have no padding, and must not need dropping.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: arrays of integers.
unsafe impl Plain for CodeLine {}
// SAFETY: arrays of integers.
unsafe impl Plain for RowLine {}
// SAFETY: integers, floats and a transparent count of seconds, all of four bytes.
unsafe impl Plain for Meta {}

/// A file in memory, read-only.
#[derive(Debug)]
pub(super) struct Map(Mmap);

impl Map {
    /// Maps a whole file. `all` brings all of it in at once, and not page by page as it is read.
    pub(super) fn of(file: &File, all: bool) -> io::Result<Self> {
        let mut options = MmapOptions::new();
        if all {
            options.populate();
        }
        // SAFETY: that nobody changes the file is asked of whoever opens an index, see above.
        unsafe { options.map(file) }.map(Self)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Room for a fixed number of items, written and read as the rule of [`super::cell`] says.
pub(super) struct Room<T> {
    items: NonNull<T>,
    capacity: usize,
    /// What the items are part of, if it is not memory of their own.
    map: Option<Arc<Map>>,
}

// SAFETY: it owns its items or a share of what holds them, and the rule of `cell` keeps reads and
// writes apart.
unsafe impl<T: Plain + Send> Send for Room<T> {}
// SAFETY: as above.
unsafe impl<T: Plain + Sync> Sync for Room<T> {}

impl<T: Plain> Room<T> {
    /// Zeroed room on the heap.
    pub(super) fn new(capacity: usize) -> Self {
        let items = match Self::layout(capacity) {
            None => NonNull::dangling(),
            Some(layout) => {
                // SAFETY: the layout is not of size zero.
                let items = unsafe { alloc_zeroed(layout) };
                NonNull::new(items.cast()).unwrap_or_else(|| handle_alloc_error(layout))
            }
        };
        Self {
            items,
            capacity,
            map: None,
        }
    }

    /// Room on the heap, filled with these items.
    pub(super) fn filled(items: impl ExactSizeIterator<Item = T>) -> Self {
        let room = Self::new(items.len());
        for (at, item) in (0..room.capacity).zip(items) {
            // SAFETY: below the capacity, and nobody else knows of the room yet.
            unsafe { room.write(at, item) };
        }
        room
    }

    /// So many items in place in a map, from this byte on. `None` if they are not all in the map,
    /// or lie where their type cannot.
    pub(super) fn mapped(map: &Arc<Map>, offset: usize, capacity: usize) -> Option<Self> {
        let size = capacity.checked_mul(size_of::<T>())?;
        let bytes = map.bytes().get(offset..offset.checked_add(size)?)?;
        let items = NonNull::from(bytes).cast::<T>();
        items
            .addr()
            .get()
            .is_multiple_of(align_of::<T>())
            .then(|| Self {
                items,
                capacity,
                map: Some(Arc::clone(map)),
            })
    }

    /// `None` for no items.
    fn layout(capacity: usize) -> Option<Layout> {
        let layout = Layout::array::<T>(capacity);
        // Rows number less than 2^32 and an item is below 2 KiB a row, so this cannot overflow.
        layout.ok().filter(|layout| layout.size() > 0)
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn as_ptr(&self) -> *mut T {
        self.items.as_ptr()
    }

    /// # Safety
    /// The items must be published.
    pub(super) unsafe fn published(&self, start: usize, count: usize) -> &[T] {
        debug_assert!(start + count <= self.capacity);
        // SAFETY: within the allocation or the map, and nobody writes there any more.
        unsafe { std::slice::from_raw_parts(self.items.as_ptr().add(start), count) }
    }

    /// # Safety
    /// `at` must be below the capacity and not published, and the caller the appender. All that
    /// is mapped counts as published.
    pub(super) unsafe fn write(&self, at: usize, item: T) {
        debug_assert!(at < self.capacity && self.map.is_none());
        // SAFETY: within the allocation, and nobody else touches it.
        unsafe { self.items.as_ptr().add(at).write(item) };
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        match self.map {
            None => self.capacity * size_of::<T>(),
            Some(_) => 0,
        }
    }

    /// Bytes in a map.
    pub(super) fn mapped_bytes(&self) -> usize {
        match self.map {
            None => 0,
            Some(_) => self.capacity * size_of::<T>(),
        }
    }

    /// What the items are part of.
    pub(super) fn map(&self) -> Option<&Arc<Map>> {
        self.map.as_ref()
    }
}

impl<T> Drop for Room<T> {
    fn drop(&mut self) {
        if self.map.is_none()
            && let Ok(layout) = Layout::array::<T>(self.capacity)
            && layout.size() > 0
        {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.items.as_ptr().cast(), layout) };
        }
    }
}
