<?php
// A request, in PHP: a page like any other. php-cgi runs it (script_filename in the pool).
switch ($_SERVER['REQUEST_METHOD']) {
    case 'GET':
    case 'HEAD':
        $name = $_GET['name'] ?? 'world';
        break;
    case 'POST':
        http_response_code(201);
        if (!isset($_POST['name'])) {
            // No form: give the bytes back.
            header('Content-Type: application/octet-stream');
            readfile('php://input');
            exit;
        }
        $name = $_POST['name'];
        break;
    default:
        http_response_code(405);
        header('Allow: GET, HEAD, POST');
        header('Content-Type: text/plain; charset=utf-8');
        exit("Not with this method.\n");
}
?>
<p>Hello, <?= htmlspecialchars(is_string($name) ? $name : 'world') ?>, from PHP.</p>
