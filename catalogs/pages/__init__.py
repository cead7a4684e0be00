"""What all HTML pages share: pictures, charts and templates."""
