//! `enum_with_all!` declares an enum without data together with `ALL`, the list of its variants, so that none can
//! be missing in it.
//!
//! Must not know: which enums there are.

/// Declares an enum and its `ALL`, in the order of the variants.
macro_rules! enum_with_all {
    ($(#[$attribute:meta])* $visibility:vis enum $name:ident {
        $($(#[$of_variant:meta])* $variant:ident,)+
    }) => {
        $(#[$attribute])*
        $visibility enum $name {
            $($(#[$of_variant])* $variant,)+
        }

        impl $name {
            /// Every variant, in order.
            $visibility const ALL: [Self; [$(Self::$variant),+].len()] = [$(Self::$variant),+];
        }
    };
}
