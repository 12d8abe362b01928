//! Cutting a sum into groups that are short enough for 16 bits.
//!
//! With |activation| ≤ 128, a part of a sum fits 16 bits, signed, where 128 times the sum of its weights' magnitudes is at
//! most 32,767, for every channel that is summed up in that order. Elements are packed into as few such groups as first
//! fit finds: the heaviest first, each into the fullest group that has room for it in all channels. Groups of equal
//! length are neighbours, so that a few loops run over all of them; a group may be filled up with zeros for that.

use std::fmt;

/// Greatest sum of magnitudes of a channel's weights in a group.
pub(super) const MAGNITUDE: u16 = 255;
/// Bytes of weights from which on elements stay in order, in groups of two.
const MANY: usize = 4 << 20;
/// Groups that are open at a time.
const OPEN: usize = 96;
/// Comparisons of weights that a way of packing may take; where it would take more, it is left out.
const WORK: usize = 100_000_000;
/// Lengths for which groups of one length are tried.
const ATTEMPTS: usize = 4;
/// Different lengths of groups.
const LENGTHS: usize = 3;

/// A sum in groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Groups {
    /// The elements in the order in which they are summed up; none is a weight of zero.
    pub order: Vec<Option<usize>>,
    /// Lengths of groups, and how many of each follow one another.
    pub runs: Vec<(usize, usize)>,
}

impl Groups {
    /// How many groups there are.
    pub fn count(&self) -> usize {
        self.runs.iter().map(|(_, count)| count).sum()
    }

    /// Packs a sum of `sum` elements of `channels` channels into groups of at most `most` elements, a multiple of
    /// `multiple` (1 or 2) with zeros. `read` gives a channel's weights. `None` if two neighbours are too great for one
    /// group, in a layer so large that its elements stay in order. `cost` compares.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn new<E>(
        sum: usize,
        channels: usize,
        [most, multiple]: [usize; 2],
        mut read: impl FnMut(usize, &mut Vec<u8>) -> Result<(), E>,
        cost: impl Fn(&Groups) -> u64,
    ) -> Result<Option<Self>, E> {
        let mut buffer = Vec::new();
        if sum.saturating_mul(channels) > MANY {
            for channel in 0..channels {
                read(channel, &mut buffer)?;
                if buffer.chunks(2).any(|pair| magnitude(pair) > MAGNITUDE) {
                    return Ok(None);
                }
            }
            return Ok(Some(Self::in_order(sum)));
        }
        let weights = Elements::read(sum, channels, read)?;
        let mut ways = vec![Self::packed(&weights, [most, multiple])];
        // Equal lengths: the two greatest that are possible.
        let lengths = (multiple..=most.min(sum.next_multiple_of(multiple))).rev();
        let lengths = lengths.filter(|n| n.is_multiple_of(multiple) && *n > 1);
        let equal = lengths.filter(|n| weights.may_be_equal(*n)).take(ATTEMPTS);
        ways.extend(equal.filter_map(|n| Self::balanced(&weights, n)).take(2));
        Ok(ways.into_iter().min_by_key(|groups| cost(groups)))
    }

    /// Groups of equal length, one way for each of `lengths` for which one was found.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn equal<E>(
        sum: usize,
        channels: usize,
        lengths: &[usize],
        read: impl FnMut(usize, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Vec<Self>, E> {
        if sum.saturating_mul(channels) > MANY {
            return Ok(Vec::new());
        }
        let weights = Elements::read(sum, channels, read)?;
        let possible = lengths.iter().filter(|n| weights.may_be_equal(**n));
        Ok(possible.filter_map(|n| Self::balanced(&weights, *n)).collect())
    }

    /// Pairs of neighbours.
    fn in_order(sum: usize) -> Self {
        let order = (0..sum.next_multiple_of(2)).map(|k| (k < sum).then_some(k)).collect();
        let runs = vec![(2, sum.div_ceil(2))];
        Groups { order, runs }
    }

    fn packed(weights: &Elements, [most, multiple]: [usize; 2]) -> Self {
        let channels = weights.channels;
        let element = |k: usize| weights.of(k);
        let mut open: Vec<Open> = Vec::new();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (greatest, k) in weights.heaviest.iter().copied() {
            let mut best: Option<(u16, usize)> = None;
            for (index, group) in open.iter().enumerate() {
                let fits = group.most + u16::from(greatest) <= MAGNITUDE || group.fits(element(k));
                if fits && best.is_none_or(|(fullest, _)| group.most > fullest) {
                    best = Some((group.most, index));
                }
            }
            let index = best.map_or_else(
                || {
                    if open.len() == OPEN {
                        // The one with the least room.
                        let fullest = (0..OPEN).max_by_key(|index| open[*index].most).unwrap_or(0);
                        groups.push(open.swap_remove(fullest).elements);
                    }
                    open.push(Open {
                        sums: vec![0; channels],
                        most: 0,
                        elements: Vec::new(),
                    });
                    open.len() - 1
                },
                |(_, index)| index,
            );
            open[index].add(k, element(k));
            if open[index].elements.len() == most {
                groups.push(open.swap_remove(index).elements);
            }
        }
        groups.extend(open.into_iter().map(|group| group.elements));
        if multiple == 2 {
            make_even(&mut groups, element, most);
            groups.retain(|group| !group.is_empty());
        }
        Self::of_lengths(groups, [most, multiple])
    }

    /// Groups of `length`, if the heaviest first into the emptiest makes some.
    fn balanced(weights: &Elements, length: usize) -> Option<Self> {
        let sum = weights.heaviest.len();
        let mut groups: Vec<Open> = (0..sum.div_ceil(length))
            .map(|_| Open {
                sums: vec![0; weights.channels],
                most: 0,
                elements: Vec::with_capacity(length),
            })
            .collect();
        for (greatest, k) in weights.heaviest.iter().copied() {
            let fits = |group: &&mut Open| {
                group.elements.len() < length
                    && (group.most + u16::from(greatest) <= MAGNITUDE || group.fits(weights.of(k)))
            };
            let emptiest = groups
                .iter_mut()
                .filter(fits)
                .min_by_key(|group| (group.most, group.elements.len()))?;
            emptiest.add(k, weights.of(k));
        }
        let mut groups: Vec<Vec<usize>> = groups.into_iter().map(|group| group.elements).collect();
        groups.iter_mut().for_each(|group| group.sort_unstable());
        groups.sort();
        let runs = vec![(length, groups.len())];
        let filled = |group: Vec<usize>| {
            let zeros = length - group.len();
            group.into_iter().map(Some).chain(std::iter::repeat_n(None, zeros))
        };
        let order = groups.into_iter().flat_map(filled).collect();
        Some(Groups { order, runs })
    }

    /// Groups of a few different lengths, the rarest first.
    fn of_lengths(mut groups: Vec<Vec<usize>>, [most, multiple]: [usize; 2]) -> Self {
        let mut found = vec![0; most.next_multiple_of(multiple) + 1];
        groups.iter().for_each(|group| found[group.len()] += 1);
        let longest = groups
            .iter()
            .map(Vec::len)
            .max()
            .unwrap_or(1)
            .next_multiple_of(multiple);
        let lengths = lengths(&found, longest, multiple);
        let length = |group: &[usize]| lengths.iter().copied().find(|n| *n >= group.len()).unwrap_or(longest);
        let mut runs: Vec<(usize, usize)> = (lengths.iter())
            .map(|n| (*n, groups.iter().filter(|group| length(group) == *n).count()))
            .filter(|(_, count)| *count > 0)
            .collect();
        runs.sort_by_key(|(length, count)| (*count, *length));
        groups.iter_mut().for_each(|group| group.sort_unstable());
        groups.sort();
        let mut order = Vec::new();
        for (n, _) in &runs {
            for group in groups.iter().filter(|group| length(group) == *n) {
                order.extend(group.iter().copied().map(Some));
                order.resize(order.len() + n - group.len(), None);
            }
        }
        Groups { order, runs }
    }
}

impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs: Vec<String> = (self.runs.iter())
            .map(|(length, count)| format!("{count} of {length}"))
            .collect();
        write!(f, "groups: {}", runs.join(", "))
    }
}

/// A group that may have room.
struct Open {
    /// Sums of magnitudes, channel by channel, and the greatest of them.
    sums: Vec<u16>,
    most: u16,
    elements: Vec<usize>,
}

impl Open {
    fn fits(&self, element: &[u8]) -> bool {
        let mut all = self.sums.iter().zip(element);
        all.all(|(sum, weight)| sum + u16::from(*weight) <= MAGNITUDE)
    }

    fn add(&mut self, k: usize, element: &[u8]) {
        for (sum, weight) in self.sums.iter_mut().zip(element) {
            *sum += u16::from(*weight);
            self.most = self.most.max(*sum);
        }
        self.elements.push(k);
    }
}

/// The magnitudes of all weights.
struct Elements {
    /// For every element those of all channels.
    all: Vec<u8>,
    channels: usize,
    /// The elements, the heaviest first, and the greatest magnitude of each.
    heaviest: Vec<(u8, usize)>,
}

impl Elements {
    fn read<E>(
        sum: usize,
        channels: usize,
        mut read: impl FnMut(usize, &mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut buffer = Vec::new();
        let mut elements = vec![0u8; sum * channels];
        for channel in 0..channels {
            read(channel, &mut buffer)?;
            for (k, weight) in buffer.iter().enumerate() {
                elements[k * channels + channel] = (*weight as i8).unsigned_abs();
            }
        }
        Ok(Elements::new(elements, sum, channels))
    }

    /// Whether groups of `length` are possible, and not too many to be tried.
    fn may_be_equal(&self, length: usize) -> bool {
        let sum = self.heaviest.len();
        let count = sum.div_ceil(length);
        count >= self.least_groups() && count * sum * self.channels <= WORK
    }

    fn new(all: Vec<u8>, sum: usize, channels: usize) -> Self {
        let mut heaviest: Vec<(u8, u64, usize)> = (0..sum)
            .map(|k| {
                let element = &all[k * channels..(k + 1) * channels];
                let total = element.iter().map(|w| u64::from(*w)).sum();
                (element.iter().copied().max().unwrap_or(0), total, k)
            })
            .collect();
        heaviest.sort_unstable_by_key(|(greatest, total, k)| {
            (std::cmp::Reverse(u64::from(*greatest) * channels as u64 + total), *k)
        });
        Elements {
            all,
            channels,
            heaviest: heaviest.into_iter().map(|(greatest, _, k)| (greatest, k)).collect(),
        }
    }

    /// Less groups cannot hold the weights of some channel.
    fn least_groups(&self) -> usize {
        let mut totals = vec![0usize; self.channels];
        for element in self.all.chunks_exact(self.channels.max(1)) {
            totals
                .iter_mut()
                .zip(element)
                .for_each(|(total, weight)| *total += usize::from(*weight));
        }
        totals.into_iter().max().unwrap_or(0).div_ceil(MAGNITUDE.into())
    }

    fn of(&self, k: usize) -> &[u8] {
        &self.all[k * self.channels..(k + 1) * self.channels]
    }
}

/// Moves elements between groups of odd lengths where there is room, so that fewer zeros make lengths even. `element`
/// gives the magnitudes of all channels.
fn make_even<'a>(groups: &mut [Vec<usize>], element: impl Fn(usize) -> &'a [u8], most: usize) {
    let sums = |group: &[usize]| {
        let mut sums = vec![0u16; group.first().map_or(0, |k| element(*k).len())];
        for k in group {
            sums.iter_mut()
                .zip(element(*k))
                .for_each(|(sum, weight)| *sum += u16::from(*weight));
        }
        sums
    };
    let mut odd: Vec<usize> = (0..groups.len())
        .filter(|index| groups[*index].len() % 2 == 1)
        .collect();
    while let Some(from) = odd.pop() {
        let found = odd.iter().enumerate().find_map(|(place, to)| {
            [(from, *to), (*to, from)].into_iter().find_map(|(from, to)| {
                if groups[to].len() == most {
                    return None;
                }
                let sums = sums(&groups[to]);
                let fits = |k: &usize| {
                    sums.iter()
                        .zip(element(*k))
                        .all(|(sum, w)| sum + u16::from(*w) <= MAGNITUDE)
                };
                let moved = groups[from].iter().position(fits)?;
                Some((place, from, to, moved))
            })
        });
        if let Some((place, from, to, moved)) = found {
            let k = groups[from].swap_remove(moved);
            groups[to].push(k);
            odd.swap_remove(place);
        }
    }
}

fn magnitude(weights: &[u8]) -> u16 {
    weights.iter().map(|w| u16::from((*w as i8).unsigned_abs())).sum()
}

/// At most [`LENGTHS`] lengths, ascending, the last one `longest`: those to which groups (`found` of each length) are
/// filled up with the fewest zeros. Each is a loop of its own, worth a few zeros.
fn lengths(found: &[usize], longest: usize, multiple: usize) -> Vec<usize> {
    let mut best: Option<(usize, Vec<usize>)> = None;
    let shorter: Vec<usize> = (1..longest).filter(|n| n.is_multiple_of(multiple)).collect();
    let mut choices: Vec<Vec<usize>> = vec![vec![]];
    for _ in 1..LENGTHS {
        let longer = choices.iter().flat_map(|chosen| {
            let least = chosen.last().copied().unwrap_or(0);
            shorter
                .iter()
                .filter(move |n| **n > least)
                .map(move |n| [&chosen[..], &[*n]].concat())
        });
        let longer: Vec<Vec<usize>> = longer.collect();
        choices.extend(longer);
    }
    for mut chosen in choices {
        chosen.push(longest);
        let zeros: usize = (1..=longest)
            .map(|n| {
                let filled = chosen.iter().find(|length| **length >= n).unwrap_or(&longest);
                found[n] * (filled - n)
            })
            .sum();
        let cost = zeros + 2 * chosen.len();
        if best.as_ref().is_none_or(|(least, _)| cost < *least) {
            best = Some((cost, chosen));
        }
    }
    best.map_or(vec![longest], |(_, chosen)| chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// Every element once, every group within bounds in every channel: for any activations, sums fit 16 bits.
    fn check(weights: &[Vec<i8>], most: usize) -> Option<Groups> {
        check_multiple(weights, [most, 2]);
        check_multiple(weights, [most, 1])
    }

    fn check_multiple(weights: &[Vec<i8>], [most, multiple]: [usize; 2]) -> Option<Groups> {
        let sum = weights[0].len();
        let read = |channel: usize, out: &mut Vec<u8>| -> Result<(), Infallible> {
            *out = weights[channel].iter().map(|w| *w as u8).collect();
            Ok(())
        };
        let cost = |groups: &Groups| (groups.order.len() + 2 * groups.count()) as u64;
        let groups = Groups::new(sum, weights.len(), [most, multiple], read, cost).unwrap()?;
        let mut elements: Vec<usize> = groups.order.iter().flatten().copied().collect();
        elements.sort_unstable();
        assert_eq!(elements, (0..sum).collect::<Vec<_>>());
        let mut at = 0;
        for length in groups.runs.iter().flat_map(|(length, count)| vec![*length; *count]) {
            assert!(length <= most && length.is_multiple_of(multiple));
            for channel in weights {
                let of_group = groups.order[at..at + length].iter().flatten();
                // The extremes of the sum: every activation at whichever end of its range.
                let (mut least, mut greatest) = (0i32, 0i32);
                for w in of_group.map(|k| i32::from(channel[*k])) {
                    least += (w * 127).min(w * -128);
                    greatest += (w * 127).max(w * -128);
                }
                assert!(least >= -0x8000 && greatest < 0x8000, "{least} {greatest}");
            }
            at += length;
        }
        assert_eq!(at, groups.order.len());
        assert_eq!(groups.count(), groups.runs.iter().map(|run| run.1).sum::<usize>());
        Some(groups)
    }

    #[test]
    fn extremes_are_in_groups_of_one_or_two() {
        let least = check(&[vec![-128; 5], vec![127; 5]], 8).unwrap();
        assert_eq!(least.runs, [(1, 5)]);
        let two = check(&[vec![-127; 6], vec![127; 6]], 8).unwrap();
        assert_eq!(two.runs, [(2, 3)]);
        let small = check(&[vec![1; 24]], 8).unwrap();
        assert_eq!(small.runs, [(8, 3)]);
        check(&[vec![0; 3]], 8).unwrap();
        check(&[vec![-128]], 8).unwrap();
    }

    #[test]
    fn random_weights() {
        let mut state = 1u64;
        let mut next = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as usize
        };
        for _ in 0..60 {
            let (sum, channels) = (1 + next() % 90, 1 + next() % 12);
            let spread = 1 + next() % 127;
            let mut weight = || ((next() % (2 * spread + 1)) as i32 - spread as i32) as i8;
            let weights: Vec<Vec<i8>> = (0..channels).map(|_| (0..sum).map(|_| weight()).collect()).collect();
            let groups = check(&weights, 8).unwrap();
            assert!(groups.runs.len() <= LENGTHS);
        }
    }

    #[test]
    fn large_layers_stay_in_order() {
        let groups = Groups::in_order(5);
        assert_eq!(groups.runs, [(2, 3)]);
        assert_eq!(groups.order, [Some(0), Some(1), Some(2), Some(3), Some(4), None]);
        let sum = MANY + 1;
        let read = |_: usize, out: &mut Vec<u8>| -> Result<(), Infallible> {
            *out = vec![0x80; sum];
            Ok(())
        };
        assert_eq!(Groups::new(sum, 1, [8, 1], read, |_| 0), Ok(None));
    }
}
