// Before the first paint: the theme somebody has chosen over that of their system.
try {
  const theme = localStorage.getItem('flowd.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // Storage is switched off: the system decides.
}
// The address of the page may lose a folder later on: what is relative to it is resolved now.
document.querySelectorAll('link[rel=icon]').forEach(link => { link.href = link.href; });
