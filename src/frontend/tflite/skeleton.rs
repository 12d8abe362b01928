//! A large model file without its parameters: all that the flatbuffer's tables are read from.
//!
//! Parameters are vectors that lie among the tables, and reading a length in front of each would make pages of all of
//! them resident. So the file is read, not mapped, into memory that is as long and holds nothing but zeros where
//! parameters are, which takes no room; the tables that refer to parameters refer to an empty vector there instead.

use crate::data::{Bytes, Source};
use memmap2::{MmapMut, MmapOptions};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Smallest file that is worth it.
const FILE: u64 = 1 << 20;
/// Fewest bytes of a vector that are left out.
const PAYLOAD: u64 = 4 << 10;
/// Bytes of the tables that are looked at together.
const WINDOW: usize = 16 << 10;

/// See the [module](self).
pub(super) struct Skeleton {
    memory: MmapMut,
    /// By buffer: where the parameters are that were left out.
    payloads: Vec<Option<Range<u64>>>,
}

impl Skeleton {
    /// `None` for a small file, one that is in memory, and one that is not as it should be: the verifier says how.
    pub fn read(source: &Arc<Source>) -> Option<Self> {
        let len = source.bytes().len() as u64;
        if len < FILE || !matches!(**source, Source::Mapped { .. }) {
            return None;
        }
        let file = Bytes::new(source.clone(), 0..len)?;
        let fields = Reader::new(&file).fields()?;
        let mut cut: Vec<Range<u64>> = fields.iter().flatten().map(|field| field.payload.clone()).collect();
        cut.sort_unstable_by_key(|range| (range.start, range.end));
        let empty = cut.last()?.start;
        let mut memory = MmapOptions::new().len(len as usize).no_reserve_swap().map_anon().ok()?;
        // Only for the memory that it takes: pages of 2 MiB would be filled with zeros.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::NoHugePage);
        let mut buffer = vec![0; WINDOW];
        let mut at = 0;
        for range in cut.into_iter().chain(std::iter::once(len..len)) {
            copy(&file, at..range.start, &mut buffer, &mut memory).ok()?;
            at = at.max(range.end);
        }
        for Field { at, .. } in fields.iter().flatten() {
            let distance = u32::try_from(empty.checked_sub(*at)?).ok()?;
            let at = *at as usize;
            memory.get_mut(at..at + 4)?.copy_from_slice(&distance.to_le_bytes());
        }
        let payload = |field: Option<Field>| field.map(|field| field.payload.start + 4..field.payload.end);
        Some(Skeleton {
            memory,
            payloads: fields.into_iter().map(payload).collect(),
        })
    }

    /// As long as the file.
    pub fn bytes(&self) -> &[u8] {
        &self.memory
    }

    /// Where the parameters of a buffer are in the file, if they are not here.
    pub fn payload(&self, buffer: usize) -> Option<Range<u64>> {
        self.payloads.get(buffer)?.clone()
    }
}

/// Copies what is not zero.
fn copy(file: &Bytes, range: Range<u64>, buffer: &mut [u8], memory: &mut [u8]) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let n = (range.end - at).min(buffer.len() as u64) as usize;
        let piece = &mut buffer[..n];
        file.read_at(at, piece)?;
        if piece.iter().any(|byte| *byte != 0) {
            memory[at as usize..][..n].copy_from_slice(piece);
        }
        at += n as u64;
    }
    Ok(())
}

/// The field of a buffer's table that refers to its data.
#[derive(Clone)]
struct Field {
    at: u64,
    /// Length and data of the vector.
    payload: Range<u64>,
}

/// Follows the references from the model to the data of its buffers.
struct Reader<'f> {
    file: &'f Bytes,
    /// Where tables were read, the latest first.
    windows: [(u64, Vec<u8>); 3],
    /// Bytes that may still be read: broken files must not be read over and over.
    budget: u64,
}

impl<'f> Reader<'f> {
    fn new(file: &'f Bytes) -> Self {
        Reader {
            file,
            windows: Default::default(),
            budget: 2 * file.len(),
        }
    }

    /// The large ones, by buffer; `None` if a reference leads outside.
    fn fields(mut self) -> Option<Vec<Option<Field>>> {
        let model = self.follow(0)?;
        let buffers = self.field(model, 4)??;
        let list = self.follow(buffers)?;
        let count = u64::from(self.word(list)?);
        let end = list + 4 + 4 * count;
        let entries = (list + 4..end).step_by(4);
        if end > self.file.len() {
            return None;
        }
        entries.map(|entry| self.large(entry)).collect()
    }

    /// The data of the buffer that an entry of the list refers to, if they are large.
    fn large(&mut self, entry: u64) -> Option<Option<Field>> {
        let table = self.follow(entry)?;
        let Some(at) = self.field(table, 0)? else {
            return Some(None);
        };
        let start = self.follow(at)?;
        // No window: what follows is not a table.
        let mut len = [0; 4];
        self.file.read_at(start, &mut len).ok()?;
        let end = start + 4 + u64::from(u32::from_le_bytes(len));
        if end > self.file.len() {
            return None;
        }
        let payload = start..end;
        Some((end - start >= PAYLOAD).then_some(Field { at, payload }))
    }

    /// Where the offset at `at` leads.
    fn follow(&mut self, at: u64) -> Option<u64> {
        Some(at + u64::from(self.word(at)?))
    }

    /// Where a field of a table is, if the table has it.
    fn field(&mut self, table: u64, field: u64) -> Option<Option<u64>> {
        let back = self.word(table)? as i32;
        let vtable = table.checked_add_signed(-i64::from(back))?;
        let slot = 4 + 2 * field;
        if u64::from(self.half(vtable)?) < slot + 2 {
            return Some(None);
        }
        let offset = self.half(vtable + slot)?;
        Some((offset > 0).then(|| table + u64::from(offset)))
    }

    fn half(&mut self, at: u64) -> Option<u16> {
        self.get(at).map(u16::from_le_bytes)
    }

    fn word(&mut self, at: u64) -> Option<u32> {
        self.get(at).map(u32::from_le_bytes)
    }

    fn get<const N: usize>(&mut self, at: u64) -> Option<[u8; N]> {
        let inside = |(start, bytes): &(u64, Vec<u8>)| {
            let at = usize::try_from(at.checked_sub(*start)?).ok()?;
            bytes.get(at..)?.first_chunk().copied()
        };
        if let Some((i, value)) = (self.windows.iter().enumerate()).find_map(|(i, window)| Some((i, inside(window)?))) {
            self.windows[..=i].rotate_right(1);
            return Some(value);
        }
        // Around the place: tables refer to both sides.
        let start = at.saturating_sub(WINDOW as u64 / 2);
        let n = self.file.len().checked_sub(start)?.min(WINDOW as u64);
        self.budget = self.budget.checked_sub(n)?;
        self.windows.rotate_right(1);
        let (place, bytes) = &mut self.windows[0];
        bytes.resize(n as usize, 0);
        *place = start;
        self.file.read_at(start, bytes).ok()?;
        inside(&self.windows[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flatbuffers::FlatBufferBuilder;
    use std::io::Write;

    fn mapped(bytes: &[u8]) -> Arc<Source> {
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(bytes).expect("room");
        Arc::new(Source::map(file).expect("a file can be mapped"))
    }

    /// A model of buffers of these sizes; buffer i is filled with i.
    fn model(sizes: &[usize]) -> Vec<u8> {
        let mut b = FlatBufferBuilder::new();
        let buffers: Vec<_> = (sizes.iter().enumerate())
            .map(|(i, size)| {
                let data = b.create_vector(&vec![i as u8; *size]);
                let table = b.start_table();
                b.push_slot_always(4, data);
                b.end_table(table)
            })
            .collect();
        let buffers = b.create_vector(&buffers);
        let table = b.start_table();
        b.push_slot(4, 3u32, 0);
        b.push_slot_always(12, buffers);
        let table = b.end_table(table);
        b.finish(table, Some("TFL3"));
        b.finished_data().to_vec()
    }

    #[test]
    fn tables_are_whole_and_parameters_stay_in_the_file() {
        let sizes = [0, 1 << 20, 100, 5000, 5000];
        let bytes = model(&sizes);
        let source = mapped(&bytes);
        let skeleton = Skeleton::read(&source).expect("a large model");
        assert_eq!(skeleton.bytes().len(), bytes.len());
        let read = super::super::flatbuffer(skeleton.bytes()).expect("a valid flatbuffer");
        assert_eq!(read.version(), 3);
        for (i, buffer) in read.buffers().into_iter().flatten().enumerate() {
            let data = match skeleton.payload(i) {
                Some(range) => bytes[range.start as usize..range.end as usize].to_vec(),
                None => buffer.data().into_iter().flatten().collect(),
            };
            assert_eq!(skeleton.payload(i).is_some(), sizes[i] >= 4096, "{i}");
            assert_eq!(data, vec![i as u8; sizes[i]], "{i}");
        }
        let zeros = skeleton.bytes().iter().filter(|byte| **byte == 0).count();
        assert!(zeros > 1 << 20);
    }

    #[test]
    fn broken_and_small_files_are_left_to_the_verifier() {
        assert!(Skeleton::read(&mapped(&model(&[10]))).is_none());
        let bytes = model(&[1 << 20, 5000]);
        assert!(Skeleton::read(&Arc::new(Source::Memory(bytes.clone()))).is_none());
        assert!(Skeleton::read(&mapped(&bytes[..bytes.len() - 1])).is_none());
        let mut outside = bytes;
        outside[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Skeleton::read(&mapped(&outside)).is_none());
        assert!(Skeleton::read(&mapped(&[0xff; 2 << 20])).is_none());
    }
}
