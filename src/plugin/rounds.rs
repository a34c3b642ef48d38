//! Who comes next: components take turns, and of one component its jobs do, so that many jobs of one delay another's by one turn.
//!
//! Must not know: what a job is.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Jobs by component, in the order of their turns.
#[derive(Debug)]
pub struct Rounds<T> {
    /// Components with jobs, the next first; the one at work is not among them.
    order: VecDeque<Arc<str>>,
    jobs: HashMap<Arc<str>, VecDeque<T>>,
    at_work: Option<Arc<str>>,
}

impl<T> Default for Rounds<T> {
    fn default() -> Self {
        Self { order: VecDeque::new(), jobs: HashMap::new(), at_work: None }
    }
}

impl<T> Rounds<T> {
    /// A job of a component came.
    pub fn push(&mut self, component: &Arc<str>, job: T) {
        let jobs = self.jobs.entry(Arc::clone(component)).or_default();
        jobs.push_back(job);
        if jobs.len() == 1 && self.at_work.as_ref() != Some(component) {
            self.order.push_back(Arc::clone(component));
        }
    }

    /// The job whose turn it is. [`Rounds::end_turn`] must be told when the turn is over, before the next begins.
    pub fn next(&mut self) -> Option<T> {
        let component = self.order.pop_front()?;
        let jobs = self.jobs.get_mut(&component)?;
        let job = jobs.pop_front();
        if jobs.is_empty() {
            self.jobs.remove(&component);
        }
        self.at_work = Some(component);
        job
    }

    /// The turn is over; whether other components waited. Only now does this one stand in line again: behind those that came meanwhile.
    /// An unfinished job goes behind the other jobs of its component.
    pub fn end_turn(&mut self, unfinished: Option<T>) -> bool {
        let others_wait = !self.is_empty();
        let Some(component) = self.at_work.take() else { return others_wait };
        if let Some(job) = unfinished {
            self.jobs.entry(Arc::clone(&component)).or_default().push_back(job);
        }
        if self.jobs.contains_key(&component) {
            self.order.push_back(component);
        }
        others_wait
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Everything that waits, and nothing after that.
    pub fn clear(&mut self) -> Vec<T> {
        self.order.clear();
        self.jobs.drain().flat_map(|(_, jobs)| jobs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(rounds: &mut Rounds<&'static str>) -> &'static str {
        let job = rounds.next().unwrap_or("none");
        rounds.end_turn(None);
        job
    }

    #[test]
    fn many_jobs_of_one_delay_another_by_one_turn() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut rounds = Rounds::default();
        ["a1", "a2", "a3"].into_iter().for_each(|job| rounds.push(&a, job));
        assert_eq!(rounds.next(), Some("a1"));
        rounds.push(&b, "b1");
        assert!(rounds.end_turn(Some("a1 again")));
        assert_eq!([(); 5].map(|()| turn(&mut rounds)), ["b1", "a2", "a3", "a1 again", "none"]);
        assert!(rounds.is_empty() && rounds.jobs.is_empty());
    }

    #[test]
    fn components_go_round() {
        let names: [Arc<str>; 3] = ["a".into(), "b".into(), "c".into()];
        let mut rounds = Rounds::default();
        for (name, jobs) in names.iter().zip([["a1", "a2"], ["b1", "b2"], ["c1", "c2"]]) {
            jobs.into_iter().for_each(|job| rounds.push(name, job));
        }
        assert_eq!([(); 6].map(|()| turn(&mut rounds)), ["a1", "b1", "c1", "a2", "b2", "c2"]);
    }

    #[test]
    fn what_comes_during_its_own_turn_waits_for_the_next() {
        let a: Arc<str> = "a".into();
        let mut rounds = Rounds::default();
        rounds.push(&a, "a1");
        assert_eq!(rounds.next(), Some("a1"));
        rounds.push(&a, "a2");
        assert!(rounds.is_empty());
        assert!(!rounds.end_turn(None));
        assert_eq!(turn(&mut rounds), "a2");
        rounds.push(&a, "a3");
        assert_eq!(rounds.clear(), ["a3"]);
        assert!(rounds.is_empty());
    }
}
