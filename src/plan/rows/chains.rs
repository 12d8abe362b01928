//! Rows that lie over one another as they end: chained, they are placed as one, and the few bytes that each begins below the
//! one before are part of the place. First fit alone lets rows drift downwards until they no longer fit.

use super::super::storage::lcm;
use super::allocate::{Item, Meeting, Piece};

/// Items of which some are chains of others.
pub(in super::super) struct Chains {
    pub items: Vec<Item>,
    pub meetings: Vec<Meeting>,
    /// Of each item as it was: the item that holds it, and where in it.
    of: Vec<(usize, u64)>,
}

impl Chains {
    /// Chains of at most `longest` items of a piece each, which have at least half of what is written in common.
    pub fn new(items: &[Item], meetings: &[Meeting], longest: usize) -> Self {
        // What follows an item, and how far below it.
        let mut next: Vec<Option<(usize, u64)>> = vec![None; items.len()];
        let mut before: Vec<Option<usize>> = vec![None; items.len()];
        let mut length = vec![1; items.len()];
        for meeting in meetings {
            let (input, output) = (meeting.input.0, meeting.output.0);
            let ([read], [written]) = (&items[input].pieces[..], &items[output].pieces[..]) else {
                continue;
            };
            let align = lcm(items[input].align.max(items[output].align), meeting.modulus.max(1));
            let gap = meeting.gap.next_multiple_of(align);
            let common = read.size.min(written.size.saturating_sub(gap));
            let follows = read.last == meeting.step && written.first == meeting.step && written.last > meeting.step;
            let free = next[input].is_none() && before[output].is_none();
            if follows && free && 2 * common >= written.size && length[input] < longest {
                next[input] = Some((output, gap));
                before[output] = Some(input);
                length[output] = length[input] + 1;
            }
        }
        let mut chains = Chains {
            items: Vec::new(),
            meetings: Vec::new(),
            of: vec![(0, 0); items.len()],
        };
        for first in (0..items.len()).filter(|item| before[*item].is_none()) {
            chains.add(items, first, &next);
        }
        let place = |(item, at, size): (usize, u64, u64)| {
            let (of, offset) = chains.of[item];
            (of, offset + at, size)
        };
        chains.meetings = (meetings.iter())
            .filter(|meeting| next[meeting.input.0].is_none_or(|(output, _)| output != meeting.output.0))
            .map(|meeting| Meeting {
                input: place(meeting.input),
                output: place(meeting.output),
                ..*meeting
            })
            .collect();
        chains
    }

    /// The chain that begins with `first`.
    fn add(&mut self, items: &[Item], first: usize, next: &[Option<(usize, u64)>]) {
        let mut links = vec![(first, 0)];
        let (mut last, mut below) = (first, 0);
        while let Some((item, gap)) = next[last] {
            below += gap;
            links.push((item, below));
            last = item;
        }
        let mut item = Item {
            pieces: Vec::new(),
            align: 1,
        };
        for (link, down) in links {
            let offset = below - down;
            self.of[link] = (self.items.len(), offset);
            item.align = item.align.max(items[link].align);
            item.pieces.extend(items[link].pieces.iter().map(|piece| Piece {
                at: piece.at + offset,
                ..*piece
            }));
        }
        self.items.push(item);
    }

    /// Where the items are as they were, for offsets of those here.
    pub fn offsets(&self, offsets: &[u64]) -> Vec<u64> {
        self.of.iter().map(|(item, at)| offsets[*item] + at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three rows, each over the one before, 8 bytes below it.
    #[test]
    fn rows_that_follow_one_another_are_one() {
        let row = |first, last| Item {
            pieces: vec![Piece {
                at: 0,
                size: 32,
                first,
                last,
            }],
            align: 4,
        };
        let items = [row(0, 2), row(2, 4), row(4, 5), row(1, 3)];
        let meeting = |input, output, step| Meeting {
            step,
            input: (input, 0, 32),
            output: (output, 0, 32),
            gap: 6,
            modulus: 4,
        };
        let meetings = [meeting(0, 1, 2), meeting(1, 2, 4)];
        let all = Chains::new(&items, &meetings, usize::MAX);
        assert_eq!(all.items.len(), 2);
        assert_eq!(
            all.items[0].pieces.iter().map(|piece| piece.at).collect::<Vec<_>>(),
            [16, 8, 0]
        );
        assert!(all.meetings.is_empty());
        assert_eq!(all.offsets(&[100, 0]), [116, 108, 100, 0]);
        let pairs = Chains::new(&items, &meetings, 2);
        assert_eq!((pairs.items.len(), pairs.meetings.len()), (3, 1));
    }
}
