//! Access without owners, groups and modes.

use std::fs::{File, Metadata};
use std::path::Path;

use super::Access;
use crate::store::StoreError;

/// Files inherit the access rights of the folder.
impl Access {
    pub(in super::super) fn of_group(_: &Path) -> Result<Self, StoreError> {
        Ok(Self::User)
    }

    pub(in super::super) fn share(
        self,
        _: &File,
        _: &Path,
        _: &Metadata,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    pub(in super::super) fn is_being_shared(self, _: &Path) -> bool {
        false
    }

    pub(in super::super) fn check_owner(self, _: &Path, _: &Metadata) -> Result<(), StoreError> {
        Ok(())
    }

    pub(in super::super) fn check(self, _: &Path, _: &Metadata) -> Result<(), StoreError> {
        Ok(())
    }

    pub(in super::super) fn is_ours(self, metadata: &Metadata) -> bool {
        metadata.is_file()
    }
}
