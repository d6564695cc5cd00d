"""What an invitation's token becomes: a link to pass on, a link in a mail, a hash to keep. Pure."""

import hashlib


def token_hash(token: str) -> str:
    """Return what is stored of a token: its SHA-256, in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


def link_to_pass_on(invitation_url: str, token: str) -> str:
    """Return the link for the inviter. No browser sends the fragment, so the token in it stays out of logs."""
    return f"{invitation_url}#token={token}"


def link_in_mail(invitation_url: str, token: str) -> str:
    """Return where Supabase Auth sends the invited on to once its own link has signed them in.

    The token stands in the query here. Auth appends the new session as a fragment of its own, and after another
    fragment no client of Supabase finds it. A logged token alone opens nothing: the address has to match.
    """
    return f"{invitation_url}?token={token}"
